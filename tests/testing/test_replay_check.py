"""`dora replay --check` and the fixture `dora_replay`: what nodes send again, compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.dora import run_dora
from support.workspace import Workspace

from dora_recordings.reading import Recording

DATAFLOW = """
nodes:
  - id: lidar
    path: lidar.py
    inputs: {tick: dora/timer/millis/20}
    outputs: [scan]
  - id: camera
    path: lidar.py
    inputs: {tick: dora/timer/millis/30}
    outputs: [scan]
  - id: planner
    path: planner.py
    inputs:
      scan: lidar/scan
      image: camera/scan
      tick: dora/timer/millis/50
    outputs: [cmd, state]
  - id: driver
    path: driver.py
    inputs: {cmd: {source: planner/cmd, queue_size: 1}}
    outputs: [done]
"""
LIDAR = """
    import random, time
    import pyarrow as pa
    from dora import Node
    node = Node()
    for number in range(30):
        node.next()
        time.sleep(random.random() / 100)
        node.send_output("scan", pa.array([random.random()]), {"number": number})
"""
PLANNER = """
    # What it sends depends on the order of its events.
    import pyarrow as pa
    from dora import Node
    node = Node()
    speed, seen, closed = 0.0, [], 0
    for event in node:
        if event["type"] != "INPUT":
            node.send_output("state", pa.array([{"kind": event["type"], "seen": seen[-3:]}]))
            closed += event["type"] == "INPUT_CLOSED"
            if closed == 2:
                break
            continue
        seen.append(event["id"])
        if event["id"] == "tick":
            node.send_output("state", pa.array([{"kind": "tick", "seen": seen[-3:]}]))
        else:
            speed = 0.9 * speed + event["value"][0].as_py()
            node.send_output("cmd", pa.array([speed]), event["metadata"])
"""
DRIVER = """
    from dora import Node
    node = Node()
    while True:
        event = node.next(timeout=0.015)
        if event is None:
            break
        if event["type"] == "ERROR":
            node.send_output("done", b"silent")
        elif event["type"] == "INPUT":
            # the newest of what waits
            while (later := node.try_recv()) is not None and later["type"] == "INPUT":
                event = later
            node.send_output("done", event["value"])
"""


@pytest.fixture
def recording(workspace: Workspace) -> Path:
    for name, text in {"lidar": LIDAR, "planner": PLANNER, "driver": DRIVER}.items():
        workspace.node(name, text)
    file = workspace.path / "drive.mcap"
    path = workspace.dataflow(DATAFLOW)
    run_dora("record", path, "-o", file, timeout=90).succeeded()
    return file


def change(script: Path, old: str, new: str) -> None:
    text = script.read_text()
    assert old in text
    script.write_text(text.replace(old, new))


@pytest.mark.integration
def test_unchanged_nodes_and_a_change_of_a_thousandth(recording: Path) -> None:
    equal = run_dora("replay", recording, "--check", timeout=90).succeeded()
    assert "planner/cmd: 60 messages as recorded" in equal.stdout
    assert "note:" not in equal.stdout
    assert not recording.with_name("drive-check.mcap").exists()

    change(recording.with_name("planner.py"), "0.9 * speed", "0.9 * speed + 1e-3")
    found = run_dora("replay", recording, "--check", "--run", "planner", timeout=90).exited(1)
    assert "planner/cmd: message 1 at" in found.stdout
    assert "differs in value[0]" in found.stdout
    run = Recording(recording.with_name("drive-check.mcap"))
    assert {message.topic for message in run.messages()} >= {"planner/cmd"}

    # each message adds a thousandth to nine tenths of the last sum
    near = run_dora("replay", recording, "--check", "--atol", "0.011", timeout=90)
    assert "planner/cmd: 60 messages as recorded" in near.succeeded().stdout


@pytest.mark.integration
def test_missing_and_further_messages(recording: Path) -> None:
    planner = recording.with_name("planner.py")
    change(planner, 'if event["id"] == "tick":', 'if event["id"] == "tick" and len(seen) < 20:')
    found = run_dora("replay", recording, "--check", "--run", "planner", timeout=90).exited(1)
    assert "planner/state: message" in found.stdout or "planner/cmd: message" in found.stdout
    change(recording.with_name("driver.py"), 'node.send_output("done", event["value"])', "pass")
    found = run_dora("replay", recording, "--check", "--run", "driver", timeout=90).exited(1)
    assert "was not sent" in found.stdout or "differs in" in found.stdout


@pytest.mark.integration
def test_fixture(recording: Path, workspace: Workspace) -> None:
    test = workspace.file(
        "test_drive.py",
        """
        def test_drive(dora_replay):
            check = dora_replay(
                "drive.mcap", run=["planner"], compare=["planner/cmd"], atol=1e-9,
                dataflow="dataflow.yml",
            )
            assert check.equal == {"planner/cmd": 60}
        """,
    )

    def pytest_says() -> tuple[int, str]:
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:anyio", str(test)]
        done = subprocess.run(words, cwd=workspace.path, capture_output=True, text=True)
        return done.returncode, done.stdout

    code, text = pytest_says()
    assert code == 0, text
    change(recording.with_name("planner.py"), "0.9 * speed", "0.8 * speed")
    code, text = pytest_says()
    assert code == 1
    assert "planner/cmd: message 2 at" in text


@pytest.mark.integration
def test_recording_without_the_order_of_events(workspace: Workspace) -> None:
    workspace.node("lidar", LIDAR)
    workspace.node(
        "sums",
        """
        import pyarrow as pa
        from dora import Node
        node, total = Node(), 0.0
        for event in node:
            if event["type"] == "INPUT":
                total += event["value"][0].as_py()
                node.send_output("sum", pa.array([total]))
        """,
    )
    path = workspace.dataflow(
        """
        nodes:
          - {id: lidar, path: lidar.py, inputs: {tick: dora/timer/millis/20}, outputs: [scan]}
          - {id: sums, path: sums.py, inputs: {scan: lidar/scan}, outputs: [sum]}
        """
    )
    file = workspace.path / "sums.mcap"
    words = ("record", path, "-o", file, "--env", "DORA_NOTE_EVENTS=")
    run_dora(*words, timeout=60).succeeded()
    found = run_dora("replay", file, "--check", timeout=60).succeeded()
    note = "the order of its events was not recorded, as with `dora record --attach`"
    assert f'note: node "sums": {note}' in found.stdout
    assert "sums/sum: 30 messages as recorded" in found.stdout


def test_missing_file(tmp_path: Path) -> None:
    missing = run_dora("replay", tmp_path / "no.mcap", "--check").exited(1)
    assert "no.mcap" in missing.stderr
