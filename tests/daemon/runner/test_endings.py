"""Ends of runs: signals to the runner; SIGKILL of the runner, its reaper and its daemon."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from support.leftovers import LEFT_BY_A_TEST, TAG
from support.runner.found_runners import list_runners
from support.runner.runs import (
    LISTENER,
    SLEEPER,
    TALKER,
    ForegroundRun,
    background,
    foreground,
    gone,
    is_running,
    make_plan,
    run_flow,
)
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.protocol import runner as protocol
from dora_daemon.process_tree import reaper, runtime_dir
from dora_daemon.process_tree.reaper_process import MIN_UPTIME, ReaperProcess
from dora_daemon.process_tree.runtime_dir import RuntimeDir, runtime_root, sweep
from dora_daemon.runner import background as background_module
from dora_daemon.runner.background import Background
from dora_daemon.runner.control.server import ControlServer

pytestmark = pytest.mark.integration

PARENT = """
    import subprocess, sys, time
    from dora import Node
    node = Node()
    sleep = [sys.executable, "-c", "import time; time.sleep(1000)"]
    child = subprocess.Popen(sleep)
    other_group = subprocess.Popen(sleep, process_group=0)
    other_session = subprocess.Popen(sleep, start_new_session=True)
    print(child.pid, other_group.pid, other_session.pid, flush=True)
    while True:
        time.sleep(1)
"""
"""A node with three children, one in a process group and one in a session of its own."""

PARENTS = {"nodes": [{"id": "p", "path": "parent.py", "outputs": ["x"]}]}


def children_of(run: ForegroundRun) -> list[int]:
    return [int(word) for word in run.wait_for("log", node="p")["message"].split()]


def nothing_left() -> None:
    root = runtime_root()
    wait_until(
        lambda: not root.exists() or [p.name for p in root.iterdir()] == [".lock"],
        what=lambda: f"an empty {root}: {list(root.rglob('*'))}",
    )


def reaper_of(run: ForegroundRun, *, other_than: int = 0) -> int:
    """Wait for the reaper of a runner and return its pid."""

    def look() -> int | None:
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != other_than:
                try:
                    parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                    words = (path / "cmdline").read_text().split("\0")
                except OSError:
                    continue
                if parent == run.process.pid and any(w.endswith("/reaper.py") for w in words):
                    return int(path.name)
        return None

    found = wait_until(look, what="a reaper")
    assert found is not None
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_foreground_stops_gracefully(
    workspace: Workspace, number: signal.Signals
) -> None:
    workspace.node("listener", LISTENER)
    content = {"nodes": [{"id": "t", "path": "listener.py", "inputs": {"t": "dora/timer/secs/1"}}]}
    with foreground(workspace, content) as run:
        run.wait_for("log", node="t")
        run.process.send_signal(number)
        assert run.wait() == 0
        assert run.wait_for("dataflow_stopping")["reason"] == f"signal {number.name}"
        assert run.wait_for("log", message="STOP MANUAL ")
    nothing_left()


def test_a_second_signal_kills(workspace: Workspace) -> None:
    workspace.node("sleeper", SLEEPER)
    with foreground(workspace, {"nodes": [{"id": "s", "path": "sleeper.py"}]}) as run:
        run.wait_for("log", message="up")
        run.process.send_signal(signal.SIGINT)
        run.wait_for("dataflow_stopping")
        assert is_running(run.pid_of("s"))
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 1
        failed = run.wait_for("node_failed")
        assert failed["result"]["message"] == "was killed: the stop was forced"
    nothing_left()


def test_sigkill_of_dora_run_ends_nodes_and_their_children_and_leaves_nothing(
    workspace: Workspace,
) -> None:
    workspace.node("parent", PARENT)
    with foreground(workspace, PARENTS) as run:
        children = children_of(run)
        node = run.pid_of("p")
        watcher = reaper_of(run)
        run.process.kill()
        run.process.wait()
        gone(node, *children, watcher)
        nothing_left()


def test_processes_started_by_a_node_end_with_the_dataflow(workspace: Workspace) -> None:
    workspace.node("parent", PARENT)
    with foreground(workspace, PARENTS, stop_grace=0.1) as run:
        children = children_of(run)
        run.process.send_signal(signal.SIGINT)
        run.wait()
        assert not [child for child in children if is_running(child)]
    nothing_left()


def test_a_process_of_another_runner_is_not_killed(workspace: Workspace) -> None:
    workspace.node("parent", PARENT)
    with foreground(workspace, PARENTS) as run:
        children = children_of(run)
        mark = json.loads(environment(children[2])["DORA_NODE_CONFIG"])["runner"]
        reaper.kill_marked(mark[:-1])
        assert all(is_running(child) for child in children)
        reaper.kill_marked(mark)
        gone(*children)


LEAKING = """
import os, time
from multiprocessing.shared_memory import SharedMemory
from dora import Node
node = Node()
memory = SharedMemory(os.environ["NAME"], create=True, size=1000)
print("registered", flush=True)
{ending}
"""


@pytest.mark.parametrize("ending", ["pass", "time.sleep(1000)"], ids=["ends", "killed"])
def test_shared_memory_that_a_node_has_left_is_removed(workspace: Workspace, ending: str) -> None:
    """Also by a tracker that has just started when the dataflow ends or its runner is killed."""
    workspace.node("leaking", LEAKING.format(ending=ending))
    name = LEFT_BY_A_TEST + os.environ[TAG]
    nodes = [{"id": "leaking", "path": "leaking.py", "env": {"NAME": name}}]
    with foreground(workspace, {"nodes": nodes}) as run:
        if ending != "pass":
            # Python itself loses memory whose creator is killed before it has registered it
            run.wait_for("log", message="registered")
            run.process.kill()
        run.process.wait()
        wait_until(lambda: not Path("/dev/shm", name).exists(), what="the end of shared memory")
        nothing_left()


def environment(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def test_sigkill_of_the_whole_process_group(workspace: Workspace) -> None:
    workspace.node("parent", PARENT)
    with foreground(workspace, PARENTS) as run:
        children = children_of(run)
        node = run.pid_of("p")
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait()
        gone(node, *children)
        nothing_left()


def test_a_killed_reaper_is_replaced(workspace: Workspace) -> None:
    workspace.node("parent", PARENT)
    with foreground(workspace, PARENTS) as run:
        children = children_of(run)
        node = run.pid_of("p")
        first = reaper_of(run)
        mature = time.monotonic() + MIN_UPTIME
        wait_until(lambda: time.monotonic() > mature)
        os.kill(first, signal.SIGKILL)
        run.wait_for("log", level="warn")
        second = reaper_of(run, other_than=first)
        run.process.kill()
        run.process.wait()
        gone(node, *children, second)
        nothing_left()


def test_after_sigkill_of_runner_and_reaper_the_next_start_sweeps(
    workspace: Workspace,
) -> None:
    workspace.node("parent", PARENT)
    workspace.node("talker", TALKER)
    with foreground(workspace, PARENTS) as run:
        children = children_of(run)
        node = run.pid_of("p")
        os.kill(reaper_of(run), signal.SIGKILL)
        run.process.kill()
        run.process.wait()
        wait_until(lambda: not list_runners(runtime_root())[0].alive)
        # the node dies with the runner's thread; its children do not
        gone(node)
        assert all(is_running(child) for child in children)
        assert [found.alive for found in list_runners(runtime_root())] == [False]
        ran = run_flow(workspace, {"nodes": [{"id": "t", "path": "talker.py"}]})
        assert ran.result is not None
        assert ran.result.ok
        gone(*children)
        nothing_left()


def test_a_sweep_ignores_living_runners(workspace: Workspace) -> None:
    workspace.node("sleeper", SLEEPER)
    with foreground(workspace, {"nodes": [{"id": "s", "path": "sleeper.py"}]}) as run:
        run.wait_for("log", message="up")
        assert sweep(runtime_root()) == []
        found = list_runners(runtime_root())
        assert [(f.alive, f.entry.dataflow_id, f.entry.nodes) for f in found] == [
            (True, run.plan.dataflow_id, ("s",))
        ]
        assert is_running(run.pid_of("s"))


def test_a_reused_pid_is_not_killed(workspace: Workspace) -> None:
    root = runtime_root()
    directory = runtime_dir.RuntimeDir.create(root)
    directory.record_process(os.getpid())
    text = (directory.path / "groups").read_text().split()
    (directory.path / "groups").write_text(f"{text[0]} {int(text[1]) - 1}\n")
    os.close(directory.lock_descriptor)
    assert sweep(root) == [directory.path]


# --- runners of a daemon


def test_a_runner_is_adopted_by_the_next_daemon(workspace: Workspace) -> None:
    workspace.node("sleeper", SLEEPER)
    with background(workspace, {"nodes": [{"id": "s", "path": "sleeper.py"}]}) as run:
        run.wait_for_phase("running")
        found = list_runners(runtime_root())
        assert [f.entry.dataflow_id for f in found] == [run.plan.dataflow_id]
        assert found[0].alive
        assert not found[0].entry.foreground
        greeting = run.request(protocol.Handshake())
        assert isinstance(greeting, protocol.HandshakeReply)
        assert greeting.pid == found[0].entry.pid
        assert isinstance(run.request(protocol.StopAllNodes(grace=0.1)), protocol.Done)
        run.wait_for_phase("finished")
        assert isinstance(run.request(protocol.AcknowledgeResult()), protocol.Done)
        gone(greeting.pid)
        nothing_left()


def test_the_result_is_kept_until_it_is_acknowledged(workspace: Workspace) -> None:
    workspace.node("talker", TALKER + "\n    sys.exit(4)\n")
    content = {"nodes": [{"id": "t", "path": "talker.py"}]}
    with background(workspace, content) as run:
        run.wait_for_phase("finished")
        assert isinstance(run.request(protocol.AcknowledgeResult()), protocol.Done)
    with background(workspace, content) as run:
        run.wait_for_phase("finished")
        os.kill(run.pid(), signal.SIGKILL)
        gone(run.pid())
        # the reaper and any later start keep a result that was not acknowledged
        wait_until(lambda: not (run.path / "groups").exists())
        assert sweep(runtime_root()) == []
        assert [(f.alive, f.has_result) for f in list_runners(runtime_root())] == [(False, True)]
        result = protocol.DataflowResult.model_validate_json((run.path / "result.json").read_text())
        assert [r.message for r in result.root_causes] == ["exited with code 4"]
        (run.path / reaper.RESULT).unlink()
        # the reaper may still hold the lock
        wait_until(lambda: sweep(runtime_root()) or not run.path.exists())
    nothing_left()


def test_the_result_is_stored_before_it_is_reported(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.node("talker", TALKER)
    plan = make_plan(workspace, {"nodes": [{"id": "t", "path": "talker.py"}]})
    directory = RuntimeDir.create(runtime_root())
    kept = directory.path / reaper.RESULT
    stored: list[bool] = []

    def put_event(server: ControlServer, event: protocol.RunnerEvent) -> None:
        if isinstance(event, protocol.RunnerState) and event.phase == "finished":
            stored.append(kept.exists())

    monkeypatch.setattr(ControlServer, "put_event", put_event)
    monkeypatch.setattr(background_module, "LINGER_SECONDS", 0.0)

    async def run() -> None:
        await Background(plan, directory, reaper_process).run()

    with ReaperProcess(directory) as reaper_process:
        anyio.run(run)
        assert stored == [True]


def test_a_failed_preparation_is_a_result(workspace: Workspace) -> None:
    content = {"nodes": [{"id": "t", "path": "not-there.py"}]}
    with background(workspace, content) as run:
        kept = run.path / reaper.RESULT
        wait_until(kept.exists)
        result = protocol.DataflowResult.model_validate_json(kept.read_bytes())
        assert result.error is not None
        assert "Could not find source path" in result.error
        kept.unlink()  # as a daemon that has stored it
        # the reaper may still hold the lock
        wait_until(lambda: sweep(runtime_root()) or not run.path.exists())
    nothing_left()


def test_sigkill_of_a_daemons_runner_ends_its_nodes(workspace: Workspace) -> None:
    workspace.node("parent", PARENT)
    with background(workspace, PARENTS) as run:
        status = run.wait_for_phase("running")
        node = status.nodes[0].pid
        assert node is not None
        os.kill(run.pid(), signal.SIGKILL)
        gone(node, run.pid())
        nothing_left()


def test_shut_down_removes_the_directory_with_its_result(workspace: Workspace) -> None:
    workspace.node("sleeper", SLEEPER)
    with background(workspace, {"nodes": [{"id": "s", "path": "sleeper.py"}]}) as run:
        status = run.wait_for_phase("running")
        assert isinstance(run.request(protocol.ShutDown()), protocol.Done)
        gone(run.pid(), status.nodes[0].pid or 0)
    nothing_left()


def test_sigkill_at_any_moment_of_the_start(workspace: Workspace) -> None:
    chance = random.Random(11)
    workspace.node("parent", PARENT)
    content = {"nodes": [{"id": f"p{n}", "path": "parent.py"} for n in range(4)]}
    for _ in range(12):
        with foreground(workspace, content) as run:
            # a moment between the start of Python and running nodes
            with suppress(subprocess.TimeoutExpired):
                run.process.wait(chance.uniform(0.1, 0.7))
            run.process.kill()
            run.process.wait()
            pids = [e["pid"] for e in run.events() if e["kind"] == "node_spawned"]
            lines = [e["message"] for e in run.events() if e["kind"] == "log" and e["node"]]
            children = [int(word) for text in lines for word in text.split() if word.isdigit()]
            gone(*pids, *children)
        sweep(runtime_root())
        nothing_left()
