"""`dora logs --local`: selection of dataflow, nodes and lines, and following."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.command_line import Dora
from support.dora import running_dora

from dora_config.ids import log_file_name

OLD = "11111111-0000-4000-8000-000000000000"
NEW = "22222222-0000-4000-8000-000000000000"
START = datetime(2026, 8, 21, 9, 30, tzinfo=UTC).timestamp()


def line(at: float, message: str, *, node: str = "a", level: str = "info") -> str:
    ts = datetime.fromtimestamp(START + at, UTC).isoformat(timespec="milliseconds")
    entry = {"ts": ts, "level": level, "node": node, "stream": "stdout", "msg": message}
    return json.dumps(entry) + "\n"


def log(folder: Path, dataflow: str, name: str, *lines: str) -> Path:
    path = folder / "out" / dataflow / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))
    return path


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Two dataflows; the newer one has two nodes, one in a clone, one with a rotated part."""
    old = log(tmp_path, OLD, "log_x.jsonl", line(0, "old", node="x"))
    os.utime(old, (1, 1))
    log(tmp_path, NEW, "log_a.jsonl.1", line(1, "one"), line(3, "three", level="warn"))
    log(tmp_path, NEW, "log_a.jsonl", line(5, "five", level="error"))
    clone = tmp_path / "git" / "git.example" / "nodes" / ("c" * 40)
    log(
        clone, NEW, "log_b.jsonl",
        line(2, "two", node="b", level="stdout"), "torn\n", line(4, "four FIVE", node="b"),
    )  # fmt: skip
    return tmp_path


def messages(dora: Dora, *words: str) -> list[str]:
    shown = dora("logs", "--local", "--log-format", "json", *words)
    assert (shown.code, shown.err) == (0, "")
    return [json.loads(text)["msg"] for text in shown.out.splitlines()]


def test_the_newest_dataflow_all_nodes_in_the_order_of_time(dora: Dora, logs: Path) -> None:
    everything = ["one", "two", "three", "four FIVE", "five"]
    assert messages(dora) == everything
    assert messages(dora, NEW, "--all-nodes") == everything
    assert messages(dora, OLD[:8]) == ["old"]


def test_an_id_too_long_for_a_file_name(dora: Dora, tmp_path: Path) -> None:
    long, like_it = "n" * 300, "n" * 301
    for node in (long, like_it):
        log(tmp_path, NEW, log_file_name(node), line(len(node), f"I am {len(node)}", node=node))
    assert messages(dora, NEW, "--node", like_it) == ["I am 301"]
    assert messages(dora, NEW) == ["I am 300", "I am 301"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["-n", "b"], ["two", "four FIVE"]),
        ([NEW, "b"], ["two", "four FIVE"]),
        ([NEW, "b", "--node", "b"], ["two", "four FIVE"]),
        ([NEW, "a", "--level", "warn", "--since", "2026-08-21T09:30:04Z", "--grep", "F"], ["five"]),
        ([NEW, "b", "--tail", "1", "--until", "1s"], ["four FIVE"]),
        (["--tail", "2"], ["four FIVE", "five"]),
        (["--tail", "0"], []),
        (["--level", "info"], ["one", "three", "four FIVE", "five"]),
        (["--level", "WARN"], ["three", "five"]),
        (["--level", "error", "--log-filter", "b=stdout"], ["two", "four FIVE", "five"]),
        (["--grep", "five"], ["four FIVE", "five"]),
        (["--grep", "five", "--level", "error"], ["five"]),
        (["--level", "warn", "--tail", "1"], ["five"]),
        (["--since", "2026-08-21T09:30:04Z"], ["four FIVE", "five"]),
        (["--until", "2026-08-21T09:30:02Z"], ["one", "two"]),
        (["--since", "1s"], []),
        (["--until", "1s"], ["one", "two", "three", "four FIVE", "five"]),
    ],
)
def test_filters(dora: Dora, logs: Path, words: list[str], shown: list[str]) -> None:
    assert messages(dora, *words) == shown


def test_pretty_lines(dora: Dora, logs: Path) -> None:
    clock = datetime.fromtimestamp(START + 3).strftime("%H:%M:%S")
    shown = dora("logs", "--local", "--node", "a", "--level", "warn", "--tail", "2")
    assert shown.out.splitlines()[0] == f"{clock} WARN   a: three"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([NEW, "a", "--node", "b"], 2, 'two nodes given: "a" as argument and "b" with --node'),
        (["--node", "a", "--all-nodes"], 2, "cannot be used together"),
        ([NEW, "a", "--all-nodes"], 2, 'node "a" and --all-nodes cannot be used together'),
        ([NEW, "z"], 1, '[ERROR]\nno log file of node "z"; nodes with logs: a, b\n'),
        (["--since", "soon"], 2, "'soon' is not a valid time"),
        (["--level", "loud"], 2, "'loud' is not a log level"),
        (["--node", "z"], 1, '[ERROR]\nno log file of node "z"; nodes with logs: a, b\n'),
        (
            ["333"],
            1,
            f'no logs of "333" here; dataflows with logs, newest first:\n  {NEW}\n  {OLD}\n',
        ),
    ],
)
def test_wrong_usage(dora: Dora, logs: Path, words: list[str], code: int, message: str) -> None:
    shown = dora("logs", "--local", *words)
    assert shown.code == code
    assert message in shown.err


def test_no_logs_at_all(dora: Dora, tmp_path: Path) -> None:
    shown = dora("logs", "--local")
    assert shown.code == 1
    assert shown.err == f"[ERROR]\nno logs of dataflows in {tmp_path / 'out'}\n"


def test_following_shows_every_line_once_across_a_rotation(logs: Path) -> None:
    current = logs / "out" / NEW / "log_a.jsonl"
    words = ("logs", "--local", "-f", "--tail", "1", "--log-format", "json")
    with running_dora(*words, cwd=logs) as running:
        running.wait_for('"five"')
        with current.open("a") as file:
            file.write(line(6, "six")[:20])
            file.flush()
            file.write(line(6, "six")[20:])
        running.wait_for('"six"')
        with current.open("a") as file:
            file.write(line(7, "seven"))
        current.with_name("log_a.jsonl.1").rename(current.with_name("log_a.jsonl.3"))
        current.rename(current.with_name("log_a.jsonl.2"))
        current.with_name("log_a.jsonl.1").write_text(line(8, "before eight"))
        current.write_text(line(8, "eight"))
        log(logs, NEW, "log_late.jsonl", line(9, "nine", node="late"))
        running.wait_for('"eight"')
        running.wait_for('"nine"')
        running.interrupt()
        ended = running.wait().exited(0)
    assert [json.loads(text)["msg"] for text in ended.stdout.splitlines()] == [
        "five",
        "six",
        "seven",
        "before eight",
        "eight",
        "nine",
    ]
