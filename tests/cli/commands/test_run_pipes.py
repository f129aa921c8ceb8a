"""`dora run` with a pipe or file as standard output: complete output, no delays of nodes."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.dora import DORA, run_dora
from support.git_repository import Repository
from support.waiting import PATIENCE, wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

BURST = """
    from dora import Node

    with Node() as node:
        for number in range(%d):
            print("line", number)
"""

TICKING = """
    import pathlib
    from dora import Node

    with Node() as node:
        for number, event in enumerate(node):
            if event["type"] == "INPUT":
                pathlib.Path("ticks.part").write_text(str(number))
                pathlib.Path("ticks.part").replace("ticks")
"""


def burst(workspace: Workspace, lines: int) -> Path:
    workspace.node("burst", BURST % lines)
    workspace.node("ticking", TICKING)
    tick = {"tick": "dora/timer/millis/20"}
    ticking = {"id": "ticking", "path": "ticking.py", "inputs": tick}
    workspace.dataflow({"nodes": [{"id": "burst", "path": "burst.py"}, ticking]}, "both.yml")
    return workspace.dataflow({"nodes": [{"id": "burst", "path": "burst.py"}]}, "flow.yml")


@contextmanager
def piped(workspace: Workspace, *words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [DORA, "run", *words],
        cwd=workspace.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def ticks(workspace: Workspace) -> int:
    try:
        return int((workspace.path / "ticks").read_text())
    except FileNotFoundError:
        return 0


def stored(workspace: Workspace) -> int:
    (file,) = workspace.path.glob("out/*/log_burst.jsonl")
    with file.open() as lines:
        return sum(1 for _ in lines)


def test_a_burst_is_written_completely_to_a_file(workspace: Workspace) -> None:
    burst(workspace, 200_000)
    shown = run_dora("run", "flow.yml", cwd=workspace.path).succeeded()
    lines = shown.stdout.splitlines()
    assert len(lines) == 200_000
    assert all(line.endswith(f"burst: line {n}") for n, line in enumerate(lines))
    assert stored(workspace) == 200_000


def test_a_slow_reader_gets_all_lines_and_delays_no_node(workspace: Workspace) -> None:
    burst(workspace, 60_000)
    with piped(workspace, "both.yml") as process:
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: ticks(workspace) > 0, what="a first tick")
        before = ticks(workspace)
        wait_until(lambda: ticks(workspace) > before + 50, what="ticks while the pipe is full")
        count = 1
        while count < 60_000:
            assert process.stdout.readline().endswith(f"burst: line {count}\n")
            count += 1
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert stored(workspace) == 60_000


def test_ctrl_c_ends_a_run_with_a_blocked_pipe(workspace: Workspace) -> None:
    burst(workspace, 60_000)
    with piped(workspace, "both.yml") as process:
        wait_until(lambda: ticks(workspace) > 50, what="ticks while the pipe is full")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert "standard output is blocked" in process.stderr.read()
    assert stored(workspace) == 60_000


def test_a_closed_pipe_delays_no_node(workspace: Workspace) -> None:
    burst(workspace, 60_000)
    with piped(workspace, "both.yml") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
    assert stored(workspace) == 60_000


def test_every_node_has_a_log_file_of_bounded_size(workspace: Workspace) -> None:
    burst(workspace, 3_000)
    workspace.node("silent", "from dora import Node\nNode()")
    nodes = [
        {"id": "burst", "path": "burst.py", "max_log_size": "2KB"},
        {"id": "silent", "path": "silent.py"},
    ]
    workspace.dataflow({"nodes": nodes}, "flow.yml")
    run_dora("run", "flow.yml", cwd=workspace.path).succeeded()
    (silent,) = workspace.path.glob("out/*/log_silent.jsonl")
    assert silent.read_text() == ""
    parts = list(workspace.path.glob("out/*/log_burst.jsonl*"))
    assert len(parts) == 6
    assert all(part.stat().st_size <= 2048 for part in parts)


def test_the_reported_log_folder_exists(workspace: Workspace) -> None:
    repository = Repository(workspace.path / "remote")
    repository.commit("raise SystemExit(3)")
    node = {"id": "n", "path": "node.py", "git": repository.url}
    workspace.dataflow({"nodes": [node]}, "flow.yml")
    shown = run_dora("run", "flow.yml", cwd=workspace.path).exited(1)
    (named,) = [line for line in shown.stderr.splitlines() if line.startswith("logs: ")]
    assert (workspace.path / named.removeprefix("logs: ") / "log_n.jsonl").is_file()
