"""Output of every example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from examples.conftest import EXAMPLES, CopyExample
from support.dora import run_dora, running_dora

# Lines that each node prints, in this order, as regular expressions.
PRINTED: dict[str, dict[str, list[str]]] = {
    "hello": {
        "listener": [
            *(f"heard: hello {number}" for number in (1, 2, 3)),
            "the talker has ended",
            "nothing more will come: ALL_INPUTS_CLOSED",
        ]
    },
    "echo": {
        "client": [
            r"bytes: uint8, same: True, metadata: {'urgent': True}",
            r"floats with a gap: double, same: True, metadata: {'scale': 0.5}",
            r"structs: struct<.*>, same: True, metadata: {'shape': \[2, 2\]}",
            r"lists: list<.*>, same: True, metadata: {'labels': \['left', 'right'\]}",
            r"dictionary: dictionary<.*>, same: True, metadata: {'count': 3}",
            r"nothing: int16, same: True, metadata: {'taken': datetime.*}",
        ]
    },
    "operators": {
        "printer": [f"sum of squares so far: {total}" for total in (1, 5, 14, 30, 55)],
    },
    "services": {
        "alice": ["desserts reversed is stressed"],
        "bob": ["reward reversed is drawer"],
        "reverser": ["served 2 requests"],
    },
    "streaming": {
        "speaker": [
            "word-0",
            "sorry,",
            "shorter:",
            r"yes\.",
            r"spoke \d of 40 words of the first answer, 3 of 3 of the second",
        ]
    },
    "async": {
        "printer": [r"\d+ readings, mean \d+\.\d"],
        "station": ["received 10 readings, sum 55"],
    },
    "restart": {
        "flaky": [
            "life 0 begins; restarted: False",
            "life 1 begins; restarted: True",
            "life 2 begins; restarted: True",
        ],
        "watcher": [
            "flaky was restarted",
            "flaky was restarted",
            "life 0: 3 answers",
            "life 1: 3 answers",
            r"life 2: \d+ answers",
        ],
    },
    "queues": {
        "live": ["sent 40 numbers, without waiting"],
        "newest": [r"got \d+ of 40, the last ones \[37, 38, 39\]"],
        "archive": ["sent 40 numbers, waiting for the consumer"],
        "everything": [r"got 40 of 40, the last ones \[37, 38, 39\]"],
    },
    "logs": {
        "reader": [
            r"note: INFO root: started",
            r"note: WARN worker\.motor: motor is warm",
            r"note: ERROR worker\.motor: motor stopped {'celsius': '91'}",
        ],
        "worker": [r"started", r"motor is warm", r"motor stopped"],
    },
    "two_cameras": {
        "robot": [
            "policy moves the joints",
            "human moves the joints",
            "policy moves the joints",
            r"actions: .*\d+ from human, \d+ from policy; pictures at most \d+\.\d ms apart",
        ]
    },
    "timers": {
        "watch": [
            r"a fast tick every 20 ms",
            r"a slow tick every 100 ms",
            r"after half a second away: 10 fast ticks wait, 1 late one",
        ]
    },
}


def lines_of(output: str, node: str) -> list[str]:
    """Return what a node printed; a compact line reads `HH:MM:SS LEVEL node: text`."""
    return re.findall(rf"^[\d:]+ +\S+ +{node}: (.*)$", output, re.MULTILINE)


def assert_in_order(lines: list[str], expected: list[str]) -> None:
    remaining = iter(lines)
    for pattern in expected:
        if not any(re.search(pattern, line) for line in remaining):
            shown = "\n  ".join(lines)
            raise AssertionError(f"no line (any more) matches {pattern!r} in:\n  {shown}")


@pytest.mark.parametrize("example", PRINTED)
def test_output_of_an_example(example: str, copy_example: CopyExample) -> None:
    done = run_dora("run", copy_example(example), "--log-format", "compact", timeout=60)
    done.succeeded()
    for node, expected in PRINTED[example].items():
        assert_in_order(lines_of(done.output, node), expected)


def test_dynamic_node_attaches_from_outside(copy_example: CopyExample) -> None:
    file = copy_example("dynamic")
    with running_dora("run", file, "--log-format", "compact") as dataflow:
        dataflow.wait_for("now start the viewer")
        viewer = subprocess.run(
            [sys.executable, file.parent / "viewer.py"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert viewer.returncode == 0, viewer.stderr
        assert re.fullmatch(r"the viewer saw( \d+){5}\n", viewer.stdout)
        seen = [int(number) for number in viewer.stdout.split()[3:]]
        assert seen == list(range(seen[0], seen[0] + 5))
        done = dataflow.wait().succeeded()
    assert "the viewer has seen enough" in done.output


def test_every_example_is_tested_and_described() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if (path / "dataflow.yml").exists()}
    assert folders == {*PRINTED, "dynamic", "vision", "ros2", "plugin"}
    for name in folders:
        command = f"dora run examples/{name}/dataflow.yml"
        assert command in Path(EXAMPLES, name, "README.md").read_text(encoding="utf-8")
