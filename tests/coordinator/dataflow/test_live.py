"""Recovery after the loss of a connection, daemon, runner, machine or coordinator."""

from __future__ import annotations

from support.simulation.fleet_simulation import dataflow, running_fleet

from dora_config.dataflow.resolved import CurrentNode, ResolvedNode
from dora_config.protocol.daemon import PartLost
from dora_coordinator.dataflow import events
from dora_coordinator.state.commands import ArmTimer, CancelTimer


def test_nodes_continue_while_a_connection_is_lost() -> None:
    fleet, robot, _ = running_fleet()
    (runner,) = robot.runners
    fleet.disconnect(robot)
    assert fleet.listed() == [("Degraded", 'no connection to daemon "robot"')]
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert robot.runners == [runner]


def test_a_killed_daemon_adopts_its_runners() -> None:
    fleet, robot, _ = running_fleet()
    (runner,) = robot.runners
    fleet.kill_daemon(robot)
    assert fleet.listed()[0][0] == "Degraded"
    fleet.start_daemon(robot)
    fleet.settle()
    assert robot.runners == [runner]
    assert runner.phase == "running"
    assert fleet.listed() == [("Running", None)]


def test_nodes_of_a_rebooted_machine_are_spawned_at_once() -> None:
    fleet, robot, station = running_fleet()
    (untouched,) = station.runners
    fleet.reboot(robot)
    fleet.start_daemon(robot)
    fleet.settle()
    assert [runner.phase for runner in robot.runners] == ["running"]
    assert station.runners == [untouched]
    assert fleet.listed() == [("Running", None)]
    (line,) = [line for line in fleet.log if "auto-recovery: re-spawning camera" in line]
    assert line.endswith('machine "robot" was rebooted')


def test_a_runner_that_dies_repeatedly_is_spawned_every_30_seconds() -> None:
    fleet, robot, _ = running_fleet()
    fleet.kill_runner(robot.runners[0], robot)
    fleet.settle()
    assert robot.runners[0].phase == "running"  # the first recovery is immediate
    fleet.kill_runner(robot.runners[0], robot)
    fleet.settle()
    assert fleet.listed()[0][0] == "Recovering"
    fleet.pass_time(29)
    assert not robot.living(robot.runners[0].dataflow_id)
    fleet.pass_time(2)
    assert robot.runners[0].phase == "running"
    assert fleet.listed() == [("Running", None)]


def test_a_reboot_soon_after_a_recovery_is_recovered_at_once() -> None:
    fleet, robot, _ = running_fleet()
    fleet.kill_runner(robot.runners[0], robot)
    fleet.settle()
    for _ in range(3):
        fleet.reboot(robot)
        fleet.start_daemon(robot)
        fleet.settle()
        assert fleet.listed() == [("Running", None)]


def test_a_node_that_fails_at_each_recovery_is_spawned_every_30_seconds() -> None:
    fleet, robot, _ = running_fleet()
    robot.broken_nodes.add("camera")
    fleet.reboot(robot)
    fleet.start_daemon(robot)
    fleet.settle()
    attempts = robot.disk[next(iter(fleet.store))].attempt
    fleet.pass_time(29)
    assert robot.disk[next(iter(fleet.store))].attempt == attempts
    robot.broken_nodes.clear()
    fleet.pass_time(2)
    assert fleet.listed() == [("Running", None)]


def test_a_restarted_coordinator_recovers_running_dataflows() -> None:
    fleet, robot, station = running_fleet()
    before = (robot.runners[0], station.runners[0])
    fleet.kill_coordinator()
    fleet.start_coordinator()
    status, reason = fleet.listed()[0]
    assert status == "Recovering"
    assert reason == 'waiting for daemon "robot", daemon "station"'
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Recovering", 'waiting for daemon "station"')]
    fleet.connect(station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert (robot.runners[0], station.runners[0]) == before


def test_a_machine_that_does_not_report_degrades_the_dataflow() -> None:
    fleet, robot, station = running_fleet()
    fleet.kill_coordinator()
    fleet.kill_daemon(station)
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.settle()
    fleet.pass_time(60)
    assert fleet.listed() == [("Degraded", 'no connection to daemon "station"')]


def test_results_of_a_disconnected_machine_are_reported_later() -> None:
    fleet, robot, station = running_fleet()
    fleet.disconnect(robot)
    fleet.finish_runner(robot.runners[0], robot, failed={"camera"})
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed()[0][0] == "Degraded"
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Failed", "failed: camera")]
    assert robot.disk[robot.runners[0].dataflow_id].forgotten


def test_a_part_that_was_dropped_is_not_spawned_when_its_back_off_ends() -> None:
    fleet, _, _ = running_fleet(dataflow(camera="robot"))
    assert fleet.coordinator is not None
    (data,) = fleet.coordinator.registry
    node = ResolvedNode(id="logger", path="logger.py")
    data.handle(events.PartAdded("station", CurrentNode(node=node)), 0.0)
    data.handle(events.PartAbsent("station"), 1.0)
    retry = data.timer("retry", "station")
    assert ArmTimer(retry, 31.0) in data.handle(events.PartAbsent("station"), 2.0)
    attempt = data.parts["station"].attempt
    gone = PartLost(dataflow_id=data.id, attempt=attempt, reason="it is gone")
    commands = data.handle(events.PartGone("station", gone), 3.0)
    assert "station" not in data.parts
    assert CancelTimer(retry) in commands
    # it had fired in the same batch
    assert data.handle(events.TimerExpired("retry", "station"), 31.0) == []
