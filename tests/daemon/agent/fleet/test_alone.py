"""Machines that start their nodes after a power cut while the coordinator is away."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest
from support.dora import Completed, run_dora
from support.fleets.daemons import COUNTER, RealFleet, counting, is_running, pids, real_fleet
from support.fleets.linked_fleet import crossing, runner_of, wait_until_connected
from support.waiting import wait_until
from support.workspace import Workspace

from dora_config.access import state_dir
from dora_config.protocol.dataflow import DataflowSpec
from dora_daemon.agent.records import PartRecord

pytestmark = pytest.mark.integration

SOON = ("--offline-after", "1")


def cut_power(fleet: RealFleet, workspace: Workspace) -> None:
    """Kill the coordinator, all daemons and all nodes."""
    fleet.coordinator.process.kill()
    for machine, daemon in fleet.daemons.items():
        daemon.kill()
        with suppress(ValueError):  # its part has ended
            os.kill(runner_of(machine), signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, pids(workspace))), what="the nodes to end")


def started(workspace: Workspace, count: int) -> None:
    wait_until(lambda: len(pids(workspace)) >= count, what=f"{count} nodes to have started")


def stored(dataflow: str) -> DataflowSpec:
    """Return what the robot has stored of its part."""
    (path,) = state_dir().rglob(f"parts/{dataflow}.json")
    return PartRecord.model_validate_json(path.read_bytes()).spec


def here(fleet: RealFleet, *args: str) -> Completed:
    """Run a command about this machine, as the named coordinator does not answer."""
    address = {"DORA_COORDINATOR_ADDR": "127.0.0.1", "DORA_COORDINATOR_PORT": str(fleet.port)}
    return run_dora(*args, cwd=fleet.workspace.path, env=address).succeeded()


def test_a_robot_starts_without_its_coordinator(workspace: Workspace) -> None:
    robot: dict[str, object] = {"machine": "robot"}
    with real_fleet(workspace, "robot") as fleet:
        uuid = fleet.start(counting(workspace, counter=robot, collector=robot), "--name", "a")
        fleet.wait_for_messages(uuid)
        cut_power(fleet, workspace)
        robot_daemon = fleet.start_daemon("robot", *SOON, wait=False)
        robot_daemon.wait_for("the coordinator has been away for 1 s")
        started(workspace, 4)
        fleet.wait_for_messages(uuid)
        # what an operator does there is kept
        here(fleet, "param", "set", "counter", "gain", "3")
        here(fleet, "node", "stop", "collector")
        wait_until(lambda: stored(uuid).stopped == ("collector",), what="the record of the stop")
        os.kill(runner_of("robot"), signal.SIGKILL)
        started(workspace, 5)
        nodes = pids(workspace)
        fleet.restart_coordinator()
        fleet.wait_for_status("Running")
        assert pids(workspace) == nodes
        assert is_running(nodes[-1])
        assert fleet.dora("param", "get", "counter", "gain").stdout == "3\n"
        fleet.dora("node", "restart", "collector")
        fleet.wait_for_messages(uuid)
        assert len(pids(workspace)) == 6
        why = fleet.dora("why", "a").stdout
        assert "the coordinator has been away for 1 s" in why
        # what waits is listed, and what was stopped is not started by a machine alone
        cut_power(fleet, workspace)
        robot_daemon = fleet.start_daemon("robot", "--offline-after", "600", wait=False)
        robot_daemon.wait_for("no connection to the coordinator")
        assert "a: starts in " in here(fleet, "list").stderr
        assert "dataflow stopped: a" in here(fleet, "stop", "a").stdout
        robot_daemon.kill()
        again = fleet.start_daemon("robot", *SOON, wait=False)
        again.wait_for("no connection to the coordinator")
        with pytest.raises(AssertionError):
            wait_until(lambda: len(pids(workspace)) > 6, timeout=3, what="a start")


def test_the_only_node_is_stopped_and_started_on_a_robot_alone(workspace: Workspace) -> None:
    with real_fleet(workspace, "robot") as fleet:
        workspace.node("counter", COUNTER)
        node: dict[str, object] = {
            "id": "counter",
            "path": "counter.py",
            "inputs": {"tick": "dora/timer/millis/20"},
            "outputs": ["count"],
            "deploy": {"machine": "robot"},
        }
        fleet.start(workspace.dataflow({"nodes": [node]}), "--name", "a")
        started(workspace, 1)
        fleet.coordinator.process.kill()

        def shown(status: str) -> bool:
            return status in here(fleet, "node", "list").stdout

        here(fleet, "node", "stop", "counter")
        wait_until(lambda: shown("Stopped"), what="the stop to be shown")
        here(fleet, "node", "restart", "counter")
        wait_until(lambda: shown("Running"), what="the node to run")
        here(fleet, "node", "stop", "counter")
        cut_power(fleet, workspace)
        robot_daemon = fleet.start_daemon("robot", *SOON, wait=False)
        robot_daemon.wait_for("the coordinator has been away for 1 s")
        wait_until(lambda: shown("Stopped"), what="the stop to be kept")
        here(fleet, "node", "restart", "counter")
        wait_until(lambda: shown("Running"), what="the node to run again")
        fleet.restart_coordinator()
        fleet.wait_for_status("Running")


@pytest.mark.parametrize("first", ["robot", "station"])
def test_two_machines_link_without_their_coordinator(workspace: Workspace, first: str) -> None:
    with real_fleet(workspace, "robot", "station") as fleet:
        uuid = fleet.start(crossing(workspace), "--name", "a")
        fleet.wait_for_messages(uuid)
        cut_power(fleet, workspace)
        second = "station" if first == "robot" else "robot"
        fleet.start_daemon(first, *SOON, wait=False)
        started(workspace, 3)
        fleet.start_daemon(second, *SOON, wait=False)
        started(workspace, 4)
        fleet.wait_for_messages(uuid)
        nodes = pids(workspace)
        listed = here(fleet, "node", "list")  # of two daemons on one computer
        assert "counter" in listed.stdout
        assert "collector" in listed.stdout
        fleet.restart_coordinator()
        fleet.wait_for_status("Running")
        wait_until_connected(fleet)
        fleet.wait_for_messages(uuid)
        assert pids(workspace) == nodes
