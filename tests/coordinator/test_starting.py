"""A start is all or nothing; names, placement and dry runs."""

from __future__ import annotations

from support.fleet_simulation import SimulatedFleet, dataflow

from dora_config.dataflow.resolved import ResolvedDataflow, ResolvedDeploy, ResolvedNode
from dora_config.protocol.control import (
    PlacementPlan,
    StartDataflow,
    Started,
    StartTriggered,
    StopDataflow,
)
from dora_coordinator.settings import Settings
from dora_coordinator.state.records import Phase


def two_machines() -> SimulatedFleet:
    fleet = SimulatedFleet()
    fleet.add_daemon("robot", "robot")
    fleet.add_daemon("station", "station", gpu="yes")
    fleet.quiet()
    return fleet


def test_nodes_are_released_only_when_every_daemon_is_ready() -> None:
    fleet = two_machines()
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    number = fleet.start(dataflow(camera="robot", detector="station"))
    (triggered,) = fleet.progress
    assert isinstance(triggered, StartTriggered)
    for daemon in (robot, station):
        fleet.step_to_daemon(daemon)
    (camera,), (detector,) = robot.runners, station.runners
    fleet.step_runner(camera, robot)
    while fleet.step_news(robot) or fleet.step_to_coordinator(robot) or fleet.step_to_daemon(robot):
        pass
    assert camera.phase == "ready"
    assert fleet.listed() == [("Starting", None)]
    fleet.quiet()
    assert (camera.phase, detector.phase) == ("running", "running")
    assert fleet.answers[number] == Started(uuid=triggered.uuid)
    assert fleet.listed() == [("Running", None)]


def test_a_node_that_fails_on_one_daemon_rolls_back_the_others() -> None:
    fleet = two_machines()
    fleet.daemons["station"].broken_nodes.add("detector")
    number = fleet.start(dataflow(camera="robot", detector="station"))
    fleet.quiet()
    failure = fleet.failures[number]
    assert 'daemon "station", node "detector": exited with code 1' in failure.message
    assert failure.ended is not None
    assert [node.node for node in failure.ended.nodes if node.outcome == "failed"] == ["detector"]
    assert not any(runner.lives for daemon in fleet.daemons.values() for runner in daemon.runners)
    ((status, reason),) = fleet.listed()
    assert status == "Failed"
    assert "detector" in (reason or "")


def test_a_daemon_lost_while_preparing_rolls_back_and_is_cleaned_up_when_it_returns() -> None:
    fleet = two_machines()
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    number = fleet.start(dataflow(camera="robot", detector="station"))
    fleet.step_to_daemon(robot)
    fleet.step_to_daemon(station)
    fleet.disconnect(station)
    fleet.quiet()
    assert 'connection to daemon "station" was lost' in fleet.failures[number].message
    assert not any(runner.lives for runner in robot.runners)
    assert any(runner.lives for runner in station.runners)  # nobody could tell it
    fleet.connect(station)
    fleet.quiet()
    assert not any(runner.lives for runner in station.runners)


def test_a_start_that_takes_too_long_names_the_daemon() -> None:
    fleet = SimulatedFleet(Settings(start_timeout=5.0))
    slow = fleet.add_daemon("slow", "slow")
    fleet.quiet()
    number = fleet.start(dataflow(sleeper="slow"))
    fleet.step_to_daemon(slow)
    fleet.now += 5.0
    fleet.fire_due()
    fleet.quiet()
    assert 'not ready within 5 s: daemon "slow"' in fleet.failures[number].message


def test_a_coordinator_killed_before_the_release_rolls_back() -> None:
    fleet = two_machines()
    fleet.start(dataflow(camera="robot", detector="station"))
    fleet.step_to_daemon(fleet.daemons["robot"])
    fleet.kill_coordinator()
    fleet.heal()
    ((status, reason),) = fleet.listed()
    assert (status, reason) == ("Failed", "the coordinator ended while it was being prepared")
    assert not any(runner.lives for runner in fleet.daemons["robot"].runners)


def test_a_coordinator_killed_while_releasing_goes_on_releasing() -> None:
    fleet = two_machines()
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    fleet.start(dataflow(camera="robot", detector="station"))
    while next(iter(fleet.store.values()))[0].phase is Phase.PREPARING:
        for daemon in (robot, station):
            fleet.step_to_daemon(daemon)
            fleet.step_news(daemon)
            for runner in daemon.runners:
                fleet.step_runner(runner, daemon)
            fleet.step_to_coordinator(daemon)
    fleet.kill_coordinator()  # no release has arrived
    assert [r.phase for d in (robot, station) for r in d.runners] == ["ready", "ready"]
    fleet.heal(5)
    assert [r.phase for d in (robot, station) for r in d.runners] == ["running", "running"]
    assert fleet.listed() == [("Running", None)]


def test_a_stop_during_the_preparation_rolls_back() -> None:
    fleet = two_machines()
    number = fleet.start(dataflow(camera="robot"))
    fleet.step_to_daemon(fleet.daemons["robot"])
    fleet.ask(StopDataflow())
    fleet.quiet()
    assert "stopped before it had started" in fleet.failures[number].message
    assert not any(runner.lives for runner in fleet.daemons["robot"].runners)


def test_a_name_can_run_once() -> None:
    fleet = two_machines()
    spec = dataflow(camera="robot").model_copy(update={"name": "patrol"})
    fleet.start(spec)
    fleet.quiet()
    second = fleet.start(spec)
    failure = fleet.failures[second]
    assert failure.code == "conflict"
    assert 'there is already a running dataflow with name "patrol"' in failure.message
    fleet.ask(StopDataflow())
    fleet.quiet()
    third = fleet.start(spec)
    fleet.quiet()
    assert isinstance(fleet.answers[third], Started)


def test_a_machine_that_is_not_connected_starts_nothing() -> None:
    fleet = two_machines()
    number = fleet.start(dataflow(camera="robot", ghost="nobody"))
    failure = fleet.failures[number]
    assert 'no matching daemon for machine id "nobody"' in failure.message
    assert 'connected: "robot", "station"' in failure.message
    assert failure.code == "placement"
    assert not fleet.store


def test_labels_choose_the_first_daemon_that_has_them_all() -> None:
    fleet = two_machines()
    node = ResolvedNode(id="net", path="net.py", deploy=ResolvedDeploy(labels={"gpu": "yes"}))
    spec = dataflow().model_copy(update={"resolved": ResolvedDataflow(nodes=(node,))})
    number = fleet.ask(StartDataflow(spec=spec, dry_run=True))
    plan = fleet.answers[number]
    assert isinstance(plan, PlacementPlan)
    assert [(one.node, one.daemon) for one in plan.nodes] == [("net", "station")]
    assert 'labels {"gpu": "yes"}' in plan.nodes[0].reason
    assert not fleet.store
