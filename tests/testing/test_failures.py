"""What a test shows that fails, and that a killed one leaves no process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.fleets.daemons import is_running
from support.waiting import wait_until
from support.workspace import Workspace

from dora_testing import Flow, FlowError, engine

DATAFLOW = """
nodes:
  - id: square
    path: square.py
    inputs: {tick: dora/timer/millis/100}
    outputs: [squared]
"""


def pytest_with(workspace: Workspace, test: str) -> subprocess.Popen[str]:
    workspace.dataflow(DATAFLOW)
    file = workspace.file("test_square.py", test)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:anyio", str(file)]
    return subprocess.Popen(words, cwd=workspace.path, stdout=subprocess.PIPE, text=True)


def test_traceback_shows_the_test_and_not_the_plug_in(workspace: Workspace) -> None:
    workspace.node("square", "from dora import Node; Node().next(); raise KeyError('lens')")
    text, _ = pytest_with(
        workspace,
        """
        from dora_testing import from_function, from_recording
        def test_node(dora_flow):
            dora_flow("dataflow.yml").run(until=1)
        def test_recording(dora_flow):
            lost = from_recording("lost.mcap")
            dora_flow("dataflow.yml", replace={"square": lost}).run(until=1)
        def test_function(dora_flow):
            faulty = from_function(lambda seconds: {}["key"], every=0.1)
            dora_flow("dataflow.yml", replace={"square": faulty}).run(until=1)
        """,
    ).communicate(timeout=60)
    assert "3 failed" in text
    assert 'node "square" failed: exited with code 1; its last lines:' in text
    assert "KeyError: 'lens'" in text
    assert "FlowError: lost.mcap: No such file or directory" in text
    assert 'faulty = from_function(lambda seconds: {}["key"], every=0.1)' in text
    assert "dora_testing/engine.py" not in text
    assert "def run(" not in text


def test_node_that_hangs_ends_with_a_test_that_is_killed(workspace: Workspace) -> None:
    workspace.node(
        "square",
        """
        import os
        from pathlib import Path
        Path("new").write_text(str(os.getpid()))
        Path("new").rename("pid")
        while True:
            pass
        """,
    )
    test = """
        def test_square(dora_flow):
            dora_flow("dataflow.yml").run(until=1)
    """
    file = Path(workspace.path / "pid")
    with pytest_with(workspace, test) as running:
        wait_until(file.exists, what="the start of the node")
        running.kill()
    node = int(file.read_text())
    wait_until(lambda: not is_running(node), what="the end of the node")


def test_names_and_ends_that_are_missing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.node("square", "from dora import Node\nfor event in Node(): pass")
    flow = Flow(workspace.dataflow(DATAFLOW))
    with pytest.raises(FlowError, match=r'node "sqare" does not exist; .* has: square'):
        flow.run(until=1, may_fail=["sqare"])
    monkeypatch.setattr(engine, "MOST_WITHOUT_END", 50)
    with pytest.raises(FlowError, match=r"no end after 50 events, 4\.\d s: .* `run\(until=5\)`"):
        flow.run()
