"""What a machine runs after it was away: the coordinator's record against what the machine did."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from coordinator.fleet.test_fleet import apply, on
from support.simulation.fleets import SimulatedFleet, dataflow, fleet_of, pipeline, running_fleet
from support.simulation.machines import SimulatedDaemon, SimulatedRunner

from dora_config.protocol.control import (
    ChangeGraph,
    RestartDataflow,
    StopDataflow,
)
from dora_config.protocol.fleet import DesiredDataflow
from dora_config.protocol.runner import AddNode

AWAY = 300.0
LAST = None


def lives(daemon: SimulatedDaemon) -> list[SimulatedRunner]:
    return [runner for runner in daemon.runners if runner.lives]


STATES = ("ran on", "rebooted", "waits")
"""Of the robot when it returns: ``waits``: rebooted just before, so that nothing runs yet."""


def leave_until(fleet: SimulatedFleet, robot: SimulatedDaemon, state: str) -> None:
    """Cut the robot off, and let it be in this state."""
    fleet.disconnect(robot)
    if state == "rebooted":
        fleet.reboot(robot)
        robot.start(fleet.now)
    fleet.pass_time(AWAY)
    if state == "waits":
        fleet.reboot(robot)
        robot.start(fleet.now)
    assert len(lives(robot)) == (state != "waits")


def words(fleet: SimulatedFleet) -> str:
    """Return what the histories of all dataflows say."""
    assert fleet.coordinator is not None
    registry = fleet.coordinator.registry
    return str([registry.history.of(one.id) for one in registry])


def leave(fleet: SimulatedFleet, robot: SimulatedDaemon, *, rebooted: bool) -> None:
    """Cut the robot off, possibly with a power cut, until it has started its nodes alone."""
    fleet.disconnect(robot)
    if rebooted:
        fleet.reboot(robot)
        robot.start(fleet.now)
    fleet.pass_time(AWAY)
    (runner,) = lives(robot)
    assert runner.phase == "running"


def come_back(fleet: SimulatedFleet, robot: SimulatedDaemon) -> None:
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


def promote(fleet: SimulatedFleet) -> None:
    """The coordinator is lost, and a standby takes over at once."""
    fleet.send_copy()
    fleet.kill_coordinator()
    fleet.promote()


@pytest.mark.parametrize("rebooted", [False, True], ids=["ran on", "rebooted"])
@pytest.mark.parametrize("coordinator", [nothing, kill, lose, promote])
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


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("coordinator", [nothing, kill, lose])
def test_what_an_operator_did_on_the_machine_is_kept(
    coordinator: Callable[[SimulatedFleet], None], state: str
) -> None:
    spec = dataflow(camera="robot", arm="robot", detector="station")
    given = {"arm": {"speed": 1}, "detector": {"limit": 2}}
    fleet, robot, station = running_fleet(spec.model_copy(update={"params": given}))
    coordinator(fleet)
    leave(fleet, robot, rebooted=False)
    (runner,) = lives(robot)
    runner.redefine(params={"camera": {"gain": 3}}, stopped=("arm",), revision=1)
    robot.report_runner(runner)
    fleet.settle()
    leave_until(fleet, robot, state)
    come_back(fleet, robot)
    (again,) = lives(robot)
    assert (again is runner) == (state == "ran on")
    assert (again.definitions.params, again.definitions.stopped) == (
        {"camera": {"gain": 3}},
        ("arm",),
    )
    assert lives(station)[0].attempt == 1
    ((record, stored),) = fleet.store.values()
    assert stored.params == {"camera": {"gain": 3}, "detector": {"limit": 2}}
    assert stored.stopped == ("arm",)
    assert record.changes == 0
    assert fleet.listed() == [("Running", None)]
    # a restart of the dataflow starts all nodes
    fleet.request(RestartDataflow(dataflow=LAST))
    fleet.settle()
    assert [(one.definitions.stopped, one.phase) for one in lives(robot)] == [((), "running")]


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


@pytest.mark.parametrize("state", STATES)
def test_an_older_store_takes_the_nodes_of_the_machine(state: str) -> None:
    fleet, robot, _ = running_fleet(dataflow(camera="robot"))
    yesterday = copy.deepcopy(fleet.store)
    node = dataflow(lidar="robot").resolved.nodes[0]
    fleet.request(ChangeGraph(dataflow=LAST, change=AddNode(node=node)))
    fleet.settle()
    fleet.kill_coordinator()
    fleet.store.clear()
    fleet.store.update(yesterday)
    leave_until(fleet, robot, state)
    before = lives(robot)
    come_back(fleet, robot)
    (runner,) = lives(robot)
    assert before in ([runner], [])
    assert set(runner.nodes) == {"camera", "lidar"}
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


DRIVE = on("drive", "robot")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    ("desired", "runs", "word"),
    [
        ((DRIVE,), {"robot": ["drive@robot 1"]}, ""),
        ((on("drive", "robot", version="2"),), {"robot": ["drive@robot 2"]}, ""),
        ((), {}, "stop_requested"),
        ((on("steer", "robot"),), {"robot": ["steer@robot 1"]}, "stop_requested"),
        ((on("drive", "station"),), {"station": ["drive@station 1"]}, "stop_requested"),
        ((on("drive", "robot", extra="1"),), {"robot": ["drive@robot 1"]}, "requested a restart"),
    ],
    ids=["equal", "changed", "removed", "renamed", "moved", "other nodes"],
)
def test_what_was_applied_meanwhile_runs(
    desired: tuple[DesiredDataflow, ...], runs: dict[str, list[str]], word: str, state: str
) -> None:
    fleet = fleet_of("robot", "station")
    apply(fleet, DRIVE)
    fleet.pass_time(10.0)
    robot = fleet.daemons["robot"]
    before = lives(robot)
    leave_until(fleet, robot, state)
    before = before if state == "ran on" else lives(robot)
    apply(fleet, *desired)
    come_back(fleet, robot)
    found = {
        daemon.name: [
            f"{name_of(fleet, one)} {one.definitions.nodes[0].node.path}" for one in lives(daemon)
        ]
        for daemon in fleet.daemons.values()
        if lives(daemon)
    }
    assert found == runs
    if state == "waits" and runs:
        word = "rebooted" if desired == (DRIVE,) else word
    elif desired == (DRIVE,):
        assert lives(robot) == before
    assert word in words(fleet)


def name_of(fleet: SimulatedFleet, runner: SimulatedRunner) -> str | None:
    return fleet.store[runner.dataflow_id][1].name


@pytest.mark.parametrize("state", STATES)
def test_a_coordinator_without_its_store_runs_what_ran(state: str) -> None:
    fleet, robot, _ = running_fleet(dataflow(camera="robot"))
    lose(fleet)
    leave_until(fleet, robot, state)
    before = lives(robot)
    come_back(fleet, robot)
    (runner,) = lives(robot)
    assert before in ([runner], [])
    assert fleet.listed() == [("Running", None)]


def test_a_part_of_an_earlier_start_is_dropped_if_the_store_was_lost() -> None:
    spec = dataflow(camera="robot").model_copy(update={"name": "drive"})
    fleet, robot, _ = running_fleet(spec)
    lose(fleet)
    leave_until(fleet, robot, "waits")
    fleet.start_coordinator()
    other = dataflow(camera="station").model_copy(update={"name": "drive"})
    fleet.connect(fleet.daemons["station"])
    fleet.settle()
    fleet.start(other)
    fleet.settle()
    come_back(fleet, robot)
    assert lives(robot) == []
    assert any("part of an earlier start" in line for line in fleet.log)


@pytest.mark.parametrize("state", ["rebooted", "waits"])
def test_nodes_that_cannot_start_are_tried_again(state: str) -> None:
    """As after their code was removed from the machine."""
    fleet, robot, _ = running_fleet(dataflow(camera="robot"))
    fleet.disconnect(robot)
    fleet.reboot(robot)
    robot.broken_nodes = {"camera"}
    robot.start(fleet.now)
    fleet.pass_time(AWAY if state == "rebooted" else 1.0)
    assert lives(robot) == []
    come_back(fleet, robot)
    ((status, reason),) = fleet.listed()
    assert status == "Recovering"
    assert reason is not None
    assert reason.startswith('spawning again on daemon "robot"')
    assert "exited with code 1" in words(fleet)
    robot.broken_nodes = set()
    fleet.pass_time(120.0)
    assert fleet.listed() == [("Running", None)]
