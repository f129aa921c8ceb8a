"""What a machine runs after it was away: the coordinator's record against what the machine did."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from support.simulation.fleet_simulation import (
    SimulatedFleet,
    dataflow,
    pipeline,
    running_fleet,
)
from support.simulation.machine_simulation import FakeDaemon, FakeRunner

from dora_config.protocol.control import (
    ChangeGraph,
    DataflowRef,
    RestartDataflow,
    StopDataflow,
)
from dora_config.protocol.runner import AddNode

AWAY = 300.0
LAST = DataflowRef()


def lives(daemon: FakeDaemon) -> list[FakeRunner]:
    return [runner for runner in daemon.runners if runner.lives]


def leave(fleet: SimulatedFleet, robot: FakeDaemon, *, rebooted: bool) -> None:
    """Cut the robot off, possibly with a power cut, until it has started its nodes alone."""
    fleet.disconnect(robot)
    if rebooted:
        fleet.reboot(robot)
        robot.start(fleet.now)
    fleet.pass_time(AWAY)
    (runner,) = lives(robot)
    assert runner.phase == "running"


def come_back(fleet: SimulatedFleet, robot: FakeDaemon) -> None:
    if fleet.coordinator is None:
        fleet.start_coordinator()
    for daemon in fleet.daemons.values():
        if daemon.connection is None:
            fleet.connect(daemon)
    fleet.settle()
    fleet.pass_time(120.0)


def nothing(fleet: SimulatedFleet) -> None:
    pass


def kill(fleet: SimulatedFleet) -> None:
    fleet.kill_coordinator()


def lose(fleet: SimulatedFleet) -> None:
    fleet.kill_coordinator()
    fleet.store.clear()


@pytest.mark.parametrize("rebooted", [False, True], ids=["ran on", "rebooted"])
@pytest.mark.parametrize("coordinator", [nothing, kill, lose])
def test_nodes_are_adopted_as_they_are(
    coordinator: Callable[[SimulatedFleet], None], rebooted: bool
) -> None:
    fleet, robot, station = running_fleet()
    coordinator(fleet)
    leave(fleet, robot, rebooted=rebooted)
    before = [*lives(robot), *lives(station)]
    come_back(fleet, robot)
    assert [*lives(robot), *lives(station)] == before
    assert all(runner.phase == "running" for runner in before)
    assert fleet.listed() == [("Running", None)]


@pytest.mark.parametrize("rebooted", [False, True], ids=["ran on", "rebooted"])
@pytest.mark.parametrize("force", [False, True])
def test_what_was_stopped_meanwhile_is_stopped(rebooted: bool, force: bool) -> None:
    fleet, robot, station = running_fleet()
    leave(fleet, robot, rebooted=rebooted)
    fleet.request(StopDataflow(dataflow=LAST, force=force))
    fleet.settle()
    fleet.pass_time(AWAY)
    assert lives(station) == []
    (runner,) = lives(robot)
    come_back(fleet, robot)
    assert lives(robot) == []
    assert runner.stop_reason in ("stop requested", "the dataflow has ended")
    # and it stays stopped
    fleet.kill_coordinator()
    fleet.reboot(robot)
    robot.start(fleet.now)
    fleet.pass_time(AWAY)
    assert lives(robot) == []


@pytest.mark.parametrize("rebooted", [False, True], ids=["ran on", "rebooted"])
def test_what_was_started_elsewhere_runs_there_only(rebooted: bool) -> None:
    fleet, robot, station = running_fleet(
        dataflow(camera="robot").model_copy(update={"name": "drive"})
    )
    leave(fleet, robot, rebooted=rebooted)
    fleet.request(StopDataflow(dataflow=LAST))
    fleet.pass_time(AWAY)
    fleet.start(dataflow(camera="station").model_copy(update={"name": "drive"}))
    fleet.settle()
    come_back(fleet, robot)
    assert lives(robot) == []
    assert len(lives(station)) == 1
    assert fleet.listed()[-1] == ("Running", None)


@pytest.mark.parametrize("rebooted", [False, True], ids=["ran on", "rebooted"])
def test_a_restart_while_it_is_away_is_refused_and_changes_nothing(rebooted: bool) -> None:
    fleet, robot, _ = running_fleet(dataflow(camera="robot"))
    leave(fleet, robot, rebooted=rebooted)
    before = lives(robot)
    number = fleet.request(RestartDataflow(dataflow=LAST))
    assert 'no matching daemon for machine id "robot"' in fleet.failures[number].message
    come_back(fleet, robot)
    assert lives(robot) == before


@pytest.mark.parametrize("rebooted", [False, True], ids=["ran on", "rebooted"])
def test_an_older_store_takes_the_nodes_of_the_machine(rebooted: bool) -> None:
    fleet, robot, _ = running_fleet(dataflow(camera="robot"))
    yesterday = copy.deepcopy(fleet.store)
    node = dataflow(lidar="robot").resolved.nodes[0]
    fleet.request(ChangeGraph(dataflow=LAST, change=AddNode(node=node)))
    fleet.settle()
    fleet.kill_coordinator()
    fleet.store.clear()
    fleet.store.update(yesterday)
    leave(fleet, robot, rebooted=rebooted)
    (before,) = lives(robot)
    assert set(before.nodes) == {"camera", "lidar"}
    come_back(fleet, robot)
    assert lives(robot) == [before]
    ((_, spec),) = fleet.store.values()
    assert {node.id for node in spec.resolved.nodes} == {"camera", "lidar"}


def test_two_machines_that_boot_alone_exchange_messages() -> None:
    fleet, robot, station = running_fleet(pipeline(camera="robot", detector="station"))
    fleet.kill_coordinator()
    for daemon in (robot, station):
        fleet.reboot(daemon)
        daemon.start(fleet.now)
    fleet.pass_time(AWAY)
    before = [*lives(robot), *lives(station)]
    assert [runner.phase for runner in before] == ["running", "running"]
    come_back(fleet, robot)
    assert [*lives(robot), *lives(station)] == before
    assert fleet.listed() == [("Running", None)]
