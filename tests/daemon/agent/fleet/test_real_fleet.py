"""Ends, adoption and recovery of real processes."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from support.dora import run_dora, running_dora
from support.fleets.coordinator import free_port
from support.fleets.daemons import (
    counting,
    end_runners,
    is_running,
    pids,
    real_fleet,
    wait_for_pids,
)
from support.runner import log_files
from support.runner.found_runners import list_runners
from support.waiting import wait_until
from support.workspace import Workspace

from dora_daemon.agent.part_files import DEFAULT_LISTEN_PORT
from dora_daemon.process_tree.runtime_dir import runtime_root

pytestmark = pytest.mark.integration


def apart(workspace: Workspace, counter: dict[str, object], collector: dict[str, object]) -> Path:
    """The counting dataflow without its edge, with each node on a machine."""
    flow = counting(workspace, counter=counter, collector=collector)
    content = json.loads(flow.read_text())
    del content["nodes"][1]["inputs"]
    return workspace.dataflow(content)


@pytest.mark.dependencies
def test_the_everyday_sequence(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(free_port()))
    flow = counting(workspace)

    def dora(*args: str, code: int = 0) -> str:
        return run_dora(*args, cwd=workspace.path, timeout=40).exited(code).output

    try:
        assert dora("up") == "coordinator: started\ndaemon: started\n"
        assert dora("up") == "coordinator: already running\ndaemon: already running\n"
        started = dora("start", flow.name, "--name", "a", "--detach")
        uuid = started.split("dataflow start triggered: ")[1].split()[0]
        assert f"dataflow started: {uuid}" in started
        assert 'already a running dataflow with name "a"' in dora(
            "start", flow.name, "--name", "a", "--detach", code=1
        )
        assert f'"uuid": "{uuid}", "name": "a", "status": "Running", "nodes": 2' in dora(
            "list", "-f", "json"
        )
        wait_until(lambda: "got 5" in dora("logs", "a"), what="log lines")
        assert len(dora("logs", "a", "collector", "--tail", "5").splitlines()) == 5
        unknown = 'has no node "camera"; its nodes are: collector, counter'
        assert unknown in dora("logs", "a", "camera", "--follow", code=1)
        shown = '{"node": "counter", "status": "Running", "pid": '
        wait_until(
            lambda: shown in dora("node", "list", "-d", "a", "-f", "json"),
            what="the node to be shown as running",
        )
        assert '"a"' in dora("down", code=1)
        assert f"dataflow stopped: a ({uuid})" in dora("stop", "a")
        again = dora("stop", "a", code=1)
        assert "no running dataflow" in again
        assert uuid in again
        assert "event STOP" in dora("logs", "a", "--tail", "1")  # afterwards too
        assert dora("stop") == "No dataflows are running.\n"
        assert "destroyed" in dora("down")
        assert "cannot connect to the coordinator" in dora("list", code=1)
    finally:
        run_dora("down", "--force")
        end_runners()


def test_killed_processes_of_one_machine(workspace: Workspace) -> None:
    """Daemon, coordinator, runner, and then all of them, as by a power cut."""
    with real_fleet(workspace, None) as fleet:
        uuid = fleet.start(counting(workspace), "--name", "a")
        nodes = wait_for_pids(workspace, 2)
        runner = fleet.runner_pid()
        (found,) = list_runners(runtime_root())
        assert found.entry.daemon_port == DEFAULT_LISTEN_PORT
        fleet.daemons["default"].kill()
        fleet.wait_for_status("Degraded")
        fleet.wait_for_messages(uuid)
        fleet.start_daemon()
        fleet.wait_for_status("Running")
        fleet.wait_for_messages(uuid)
        assert fleet.runner_pid() == runner

        fleet.coordinator.process.kill()
        fleet.wait_for_messages(uuid, 50)
        fleet.restart_coordinator()
        fleet.wait_for_status("Running")
        assert pids(workspace) == nodes
        got = fleet.messages(uuid)
        assert got == list(range(len(got)))  # no message lost, no gap in the log

        os.kill(runner, signal.SIGKILL)
        again = wait_for_pids(workspace, 4)
        wait_until(lambda: not any(map(is_running, nodes)), what="the old nodes to end")
        assert all(map(is_running, again))
        fleet.wait_for_status("Running")
        fleet.coordinator.process.wait_for("auto-recovery: re-spawning counter, collector")
        assert pids(workspace)[2:] == again  # each node exactly once

        fleet.coordinator.process.kill()
        fleet.daemons["default"].kill()
        os.kill(fleet.runner_pid(), signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, again)), what="the nodes to end")
        fleet.restart_coordinator()
        fleet.start_daemon()
        last = wait_for_pids(workspace, 6)
        fleet.wait_for_status("Running")
        assert fleet.listed()[-1].uuid == uuid
        runner = fleet.runner_pid()
        assert "dataflow stopped: a" in fleet.dora("stop", "a").stdout
        assert not any(map(is_running, last))
        wait_until(lambda: not is_running(runner), what="the runner to end")


def test_an_announced_hand_over_leaves_nodes_alone(workspace: Workspace) -> None:
    flow = counting(workspace)
    with real_fleet(workspace, "robot") as fleet:
        uuid = fleet.start(counting(workspace, counter=ROBOT, collector=ROBOT))
        nodes = wait_for_pids(workspace, 2)
        fleet.daemons["robot"].send_signal(signal.SIGUSR2)
        fleet.daemons["robot"].wait().succeeded()
        fleet.wait_for_messages(uuid)
        fleet.start_daemon("robot")
        fleet.wait_for_status("Running")
        assert pids(workspace) == nodes
        assert flow.exists()


ROBOT: dict[str, object] = {"machine": "robot"}
STATION: dict[str, object] = {"machine": "station"}


def test_dataflows_continue_after_a_reboot(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The init system reports whether a SIGTERM stops the service or the machine."""
    init = workspace.path / "init"
    init.mkdir()
    (init / "systemctl").write_text("#!/bin/sh\necho stopping\n")
    (init / "systemctl").chmod(0o700)
    monkeypatch.setenv("PATH", f"{init}:{os.environ['PATH']}")
    with real_fleet(workspace, "robot") as fleet:
        uuid = fleet.start(counting(workspace, counter=ROBOT, collector=ROBOT))
        nodes = wait_for_pids(workspace, 2)
        fleet.daemons["robot"].send_signal(signal.SIGTERM)
        fleet.daemons["robot"].wait().succeeded()
        assert not any(map(is_running, nodes))
        assert not list_runners(runtime_root())
        assert "event STOP" in logged(workspace, uuid, "collector"), "nodes end in good order"
        assert fleet.listed()[-1].status == "Degraded"
        fleet.start_daemon("robot")
        fleet.wait_for_status("Running")
        fleet.wait_for_messages(uuid)


def logged(workspace: Workspace, dataflow: str, node: str) -> list[str]:
    """Return the output of a node."""
    return log_files.texts(workspace.path / "out" / dataflow / f"log_{node}.jsonl")


def test_a_signal_to_the_daemon_stops_its_nodes_first(workspace: Workspace) -> None:
    flow = counting(workspace)
    with real_fleet(workspace, None) as fleet:
        uuid = fleet.start(flow)
        nodes = wait_for_pids(workspace, 2)
        fleet.wait_for_messages(uuid)
        fleet.daemons["default"].send_signal(signal.SIGTERM)
        fleet.daemons["default"].wait().succeeded()
        assert not any(map(is_running, nodes))
        assert fleet.wait_for_status("Finished").uuid == uuid
        log = workspace.path / "out" / uuid / "log_collector.jsonl"
        assert "event STOP" in log.read_text()


def test_a_node_that_fails_on_one_daemon_leaves_nothing_on_the_other(
    workspace: Workspace,
) -> None:
    flow = apart(workspace, ROBOT, STATION)
    workspace.node("collector", "raise SystemExit('no camera here')")
    with real_fleet(workspace, "robot", "station") as fleet:
        failed = fleet.dora("start", flow, "--detach", code=1)
        assert 'daemon "station", node "collector"' in failed.stderr
        assert "no camera here" in failed.stderr
        wait_until(lambda: not any(map(is_running, pids(workspace))), what="the roll-back")
        assert fleet.listed()[-1].status == "Failed"
        assert "no camera here" in fleet.dora("logs").stdout


def test_nodes_run_on_the_machines_of_the_file(workspace: Workspace) -> None:
    flow = apart(workspace, ROBOT, {"labels": {"gpu": "yes"}})
    with real_fleet(workspace, "robot") as fleet:
        fleet.start_daemon("station", "--labels", "gpu=yes,arch=arm64")
        plan = fleet.dora("start", flow, "--dry-run").stdout
        assert [line.split()[:2] for line in plan.splitlines()[1:]] == [
            ["counter", "robot"],
            ["collector", "station"],
        ]
        fleet.start(flow)
        wait_for_pids(workspace, 2)
        assert set(fleet.listed()[-1].daemons) == {"robot", "station"}
        missing = counting(workspace, counter={"machine": "unknown"})
        refused = fleet.dora("start", missing, "--detach", code=1).stderr
        assert 'no matching daemon for machine id "unknown"' in refused
        fleet.dora("stop")


SLOW_TO_STOP = """
    from pathlib import Path
    from dora import Node
    import time

    for event in Node():
        pass
    Path("stopping").touch()
    while not Path("go").exists():
        time.sleep(0.01)
"""


def test_a_restart_continues_after_the_coordinator_was_killed(workspace: Workspace) -> None:
    workspace.node("slow", SLOW_TO_STOP)
    flow = workspace.dataflow({"nodes": [{"id": "slow", "path": "slow.py", "outputs": ["out"]}]})
    with real_fleet(workspace, None) as fleet:
        uuid = fleet.start(flow, "--name", "a")
        words = ("restart", "a", "--grace", "60", "--coordinator-port", str(fleet.port))
        with running_dora(*words, cwd=workspace.path) as restarting:
            wait_until((workspace.path / "stopping").exists, what="the stop")
            fleet.coordinator.process.kill()
            assert restarting.wait().code == 1
        (workspace.path / "go").touch()
        fleet.restart_coordinator()
        assert fleet.wait_for_status("Running").uuid != uuid
        reason = "the dataflow ended because it was stopped: a user requested a restart"
        assert reason in fleet.dora("why", uuid).stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--labels", "gpu"), "expected key=value"),
        (("--machine-id", "a b"), "invalid character"),
        (("--coordinator-port", "0"), "'--coordinator-port'"),
    ],
)
def test_wrong_words_are_usage_errors(arguments: tuple[str, ...], sentence: str) -> None:
    refused = run_dora("daemon", *arguments).exited(2)
    assert sentence in refused.stderr
