"""Stops by a user, by a daemon that ends (SIGINT, `systemctl stop`), and rollback."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, fleet_of, pipeline, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.protocol.control import StopDataflow

STOPPED = 'daemon "robot" was stopped'


def running_three() -> tuple[SimulatedFleet, SimulatedDaemon, SimulatedDaemon]:
    """Return a fleet with one dataflow over two machines and one on each machine."""
    fleet = fleet_of("robot", "station")
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    for spec in (
        pipeline(camera="robot", plot="station"),
        dataflow(logger="robot"),
        dataflow(screen="station"),
    ):
        fleet.start(spec)
        fleet.settle()
    assert fleet.listed() == [("Running", None)] * 3
    return fleet, robot, station


def test_the_dataflows_of_a_stopped_daemon_end_on_all_machines() -> None:
    fleet, robot, station = running_three()
    fleet.end_daemon(robot)
    fleet.step_to_coordinator(robot)
    assert fleet.listed()[0] == ("Stopping", STOPPED)
    fleet.settle()
    assert fleet.listed() == [("Finished", STOPPED), ("Finished", STOPPED), ("Running", None)]
    assert robot.agent is None
    both, own = station.runners
    assert (both.phase, both.stop_reason) == ("gone", STOPPED)
    assert own.phase == "running"


def test_a_daemon_that_returns_does_not_restart_what_it_ended() -> None:
    fleet, robot, station = running_three()
    fleet.end_daemon(robot)
    fleet.settle()
    fleet.start_daemon(robot)
    fleet.pass_time(60)
    assert fleet.listed() == [("Finished", STOPPED), ("Finished", STOPPED), ("Running", None)]
    assert not any(runner.lives for runner in robot.runners)
    fleet.start(pipeline(camera="robot", plot="station"))
    fleet.settle()
    assert fleet.listed()[-1] == ("Running", None)
    assert station.agent is not None


def test_a_daemon_reports_its_stop_when_it_is_connected_again() -> None:
    fleet, robot, station = running_three()
    fleet.disconnect(robot)
    fleet.end_daemon(robot)
    fleet.settle()
    assert robot.agent is None
    assert fleet.listed()[0] == ("Degraded", 'no connection to daemon "robot"')
    fleet.start_daemon(robot)
    fleet.settle()
    assert fleet.listed() == [("Finished", STOPPED), ("Finished", STOPPED), ("Running", None)]
    assert [runner.phase for runner in station.runners] == ["gone", "running"]


def test_the_reason_of_a_stop_survives_a_restart_of_the_coordinator() -> None:
    fleet, robot, station = running_three()
    fleet.end_daemon(robot)
    fleet.step_to_coordinator(robot)
    fleet.kill_coordinator()
    fleet.start_coordinator()
    assert fleet.listed()[0] == ("Stopping", STOPPED)
    fleet.settle()
    fleet.connect(station)
    fleet.start_daemon(robot)
    fleet.settle()
    assert fleet.listed()[0] == ("Finished", STOPPED)


def test_a_second_signal_kills_the_nodes() -> None:
    fleet, robot, _ = running_three()
    for runner in robot.runners:
        runner.phase = "hangs"  # ignores the request to stop
    fleet.end_daemon(robot)
    fleet.settle()
    assert fleet.listed()[1] == ("Stopping", STOPPED)
    for runner in robot.runners:
        runner.phase = "stopping"
        fleet.kill_runner(runner, robot)
    fleet.settle()
    assert robot.agent is None
    because = 'daemon "robot": its runner was killed'
    assert fleet.listed()[1] == ("Failed", f"{STOPPED}; {because}")
    fleet.start_daemon(robot)
    fleet.pass_time(60)
    assert not any(runner.lives for runner in robot.runners)


def test_a_daemon_that_ends_during_a_start_rolls_it_back() -> None:
    fleet = fleet_of("robot", "station")
    robot, station = fleet.daemons["robot"], fleet.daemons["station"]
    number = fleet.start(dataflow(camera="robot", plot="station"))
    for daemon in (robot, station):
        fleet.step_to_daemon(daemon)
        fleet.step_to_daemon(daemon)
    assert robot.runners
    fleet.end_daemon(robot)
    fleet.settle()
    assert fleet.listed() == [("Failed", STOPPED)]
    assert number in fleet.failures
    assert not any(runner.lives for runner in (*robot.runners, *station.runners))


def test_an_unconfirmed_stop_is_completed_when_the_daemon_returns() -> None:
    fleet, robot, _ = running_fleet()
    fleet.disconnect(robot)
    fleet.request(StopDataflow())
    fleet.pass_time(100)
    reason = 'the stop was not confirmed by daemon "robot"'
    still = '; nodes that still run on daemon "robot" are stopped when it connects'
    assert fleet.listed() == [("Failed", reason + still)]
    fleet.connect(robot)
    fleet.settle()
    assert not robot.living(robot.runners[0].dataflow_id)
    assert fleet.listed() == [("Failed", reason)]


def test_a_disconnected_machine_stops_its_part_when_it_returns() -> None:
    fleet, robot, _ = running_fleet()
    fleet.disconnect(robot)
    number = fleet.request(StopDataflow())
    fleet.settle()
    assert fleet.listed()[0][0] == "Stopping"
    fleet.pass_time(60)
    assert number in fleet.answers
    status, reason = fleet.listed()[0]
    assert status == "Failed"
    assert 'not confirmed by daemon "robot"' in (reason or "")
    assert robot.runners[0].lives
    fleet.connect(robot)
    fleet.settle()
    assert not robot.runners[0].lives


def test_a_restarted_coordinator_continues_a_stop() -> None:
    fleet, robot, station = running_fleet()
    fleet.request(StopDataflow())
    fleet.kill_coordinator()  # no daemon has received the stop
    fleet.heal(5)
    assert fleet.listed() == [("Finished", None)]
    assert not any(runner.lives for runner in (*robot.runners, *station.runners))


def test_a_runner_that_is_killed_while_stopping_fails_the_dataflow() -> None:
    fleet, _, station = running_fleet()
    fleet.request(StopDataflow())
    fleet.kill_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed() == [("Failed", 'daemon "station": its runner was killed')]
