"""A start releases all parts or none."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, fleet_of

from dora_config.protocol.control import (
    Started,
    StartTriggered,
    StopDataflow,
)
from dora_coordinator.settings import Settings
from dora_coordinator.state.records import Phase


def test_nodes_are_released_only_when_every_daemon_is_ready() -> None:
    fleet = fleet_of("robot", "station")
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    number = fleet.start(dataflow(camera="robot", detector="station"))
    (triggered,) = fleet.progress
    assert isinstance(triggered, StartTriggered)
    for daemon in (robot, station):
        fleet.step_to_daemon(daemon)
    (camera,), (detector,) = robot.runners, station.runners
    fleet.step_runner(camera, robot)
    while (
        fleet.step_runner_event(robot)
        or fleet.step_to_coordinator(robot)
        or fleet.step_to_daemon(robot)
    ):
        pass
    assert camera.phase == "ready"
    assert fleet.listed() == [("Starting", None)]
    fleet.settle()
    assert (camera.phase, detector.phase) == ("running", "running")
    assert fleet.answers[number] == Started(uuid=triggered.uuid)
    assert fleet.listed() == [("Running", None)]


def test_a_node_that_fails_on_one_daemon_rolls_back_the_others() -> None:
    fleet = fleet_of("robot", "station")
    fleet.daemons["station"].broken_nodes.add("detector")
    number = fleet.start(dataflow(camera="robot", detector="station"))
    fleet.settle()
    failure = fleet.failures[number]
    assert 'daemon "station", node "detector": exited with code 1' in failure.message
    assert failure.ended is not None
    assert [node.node for node in failure.ended.nodes if node.outcome == "failed"] == ["detector"]
    assert not any(runner.lives for daemon in fleet.daemons.values() for runner in daemon.runners)
    ((status, reason),) = fleet.listed()
    assert status == "Failed"
    assert "detector" in (reason or "")


def test_a_daemon_lost_while_preparing_kills_its_nodes_when_it_returns() -> None:
    fleet = fleet_of("robot", "station")
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    number = fleet.start(dataflow(camera="robot", detector="station"))
    fleet.step_to_daemon(robot)
    fleet.step_to_daemon(station)
    fleet.disconnect(station)
    fleet.settle()
    assert 'connection to daemon "station" was lost' in fleet.failures[number].message
    assert not any(runner.lives for runner in robot.runners)
    assert any(runner.lives for runner in station.runners)  # it is disconnected
    fleet.connect(station)
    fleet.settle()
    assert not any(runner.lives for runner in station.runners)


def test_a_start_that_takes_too_long_names_the_daemon() -> None:
    fleet = SimulatedFleet(Settings(start_timeout=5.0))
    slow = fleet.add_daemon("slow", "slow")
    fleet.settle()
    number = fleet.start(dataflow(sleeper="slow"))
    fleet.step_to_daemon(slow)
    fleet.now += 5.0
    fleet.fire_due()
    fleet.settle()
    message = fleet.failures[number].message
    assert 'no nodes were started within 5 s on daemon "slow"' in message


def test_the_time_that_nodes_take_to_connect_has_no_limit() -> None:
    fleet = SimulatedFleet(Settings(start_timeout=5.0))
    slow = fleet.add_daemon("slow", "slow")
    fleet.settle()
    number = fleet.start(dataflow(loader="slow", detector="slow"))
    fleet.step_to_daemon(slow)
    while fleet.step_runner_event(slow) or fleet.step_to_coordinator(slow):
        pass
    for _ in range(3):
        fleet.now += 5.0
        fleet.fire_due()
    assert fleet.listed() == [("Starting", None)]
    (progress,) = fleet.progress[1:]  # it is shown once
    assert isinstance(progress, StartTriggered)
    assert 'nodes on daemon "slow" to connect' in (progress.waits_for or "")
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert isinstance(fleet.answers[number], Started)


def test_a_coordinator_that_is_killed_before_the_release_rolls_back() -> None:
    fleet = fleet_of("robot", "station")
    fleet.start(dataflow(camera="robot", detector="station"))
    fleet.step_to_daemon(fleet.daemons["robot"])
    fleet.kill_coordinator()
    fleet.heal()
    ((status, reason),) = fleet.listed()
    assert (status, reason) == ("Failed", "the coordinator ended while it was being prepared")
    assert not any(runner.lives for runner in fleet.daemons["robot"].runners)


def test_a_restarted_coordinator_continues_to_release() -> None:
    fleet = fleet_of("robot", "station")
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    fleet.start(dataflow(camera="robot", detector="station"))
    while next(iter(fleet.store.values()))[0].phase is Phase.PREPARING:
        for daemon in (robot, station):
            fleet.step_to_daemon(daemon)
            fleet.step_runner_event(daemon)
            for runner in daemon.runners:
                fleet.step_runner(runner, daemon)
            fleet.step_to_coordinator(daemon)
    fleet.kill_coordinator()  # before any release arrives
    assert [r.phase for d in (robot, station) for r in d.runners] == ["ready", "ready"]
    fleet.heal(5)
    assert [r.phase for d in (robot, station) for r in d.runners] == ["running", "running"]
    assert fleet.listed() == [("Running", None)]


def test_a_stop_during_the_preparation_rolls_back() -> None:
    fleet = fleet_of("robot", "station")
    number = fleet.start(dataflow(camera="robot"))
    fleet.step_to_daemon(fleet.daemons["robot"])
    fleet.request(StopDataflow())
    fleet.settle()
    assert "stopped before it had started" in fleet.failures[number].message
    assert not any(runner.lives for runner in fleet.daemons["robot"].runners)
