"""What it means for dataflows that one of their daemons is stopped (SIGINT, `systemctl stop`)."""

from __future__ import annotations

from support.fleet_simulation import FakeDaemon, SimulatedFleet, dataflow, pipeline

STOPPED = 'daemon "robot" was stopped'


def running() -> tuple[SimulatedFleet, FakeDaemon, FakeDaemon]:
    """One dataflow over two machines, one on each alone."""
    fleet = SimulatedFleet()
    robot, station = fleet.add_daemon("robot", "robot"), fleet.add_daemon("station", "station")
    fleet.quiet()
    for spec in (
        pipeline(camera="robot", plot="station"),
        dataflow(logger="robot"),
        dataflow(screen="station"),
    ):
        fleet.start(spec)
        fleet.quiet()
    assert fleet.listed() == [("Running", None)] * 3
    return fleet, robot, station


def test_its_dataflows_end_on_all_machines_and_others_go_on() -> None:
    fleet, robot, station = running()
    fleet.end_daemon(robot)
    fleet.step_to_coordinator(robot)
    assert fleet.listed()[0] == ("Stopping", STOPPED)
    fleet.quiet()
    assert fleet.listed() == [("Finished", STOPPED), ("Finished", STOPPED), ("Running", None)]
    assert robot.agent is None
    both, own = station.runners
    assert (both.phase, both.stop_reason) == ("gone", STOPPED)
    assert own.phase == "running"


def test_what_it_ended_does_not_come_back_with_it() -> None:
    fleet, robot, station = running()
    fleet.end_daemon(robot)
    fleet.quiet()
    fleet.start_daemon(robot)
    fleet.pass_time(60)
    assert fleet.listed() == [("Finished", STOPPED), ("Finished", STOPPED), ("Running", None)]
    assert not any(runner.lives for runner in robot.runners)
    fleet.start(pipeline(camera="robot", plot="station"))
    fleet.quiet()
    assert fleet.listed()[-1] == ("Running", None)
    assert station.agent is not None


def test_a_coordinator_that_was_away_hears_of_it_when_the_daemon_is_back() -> None:
    fleet, robot, station = running()
    fleet.disconnect(robot)
    fleet.end_daemon(robot)
    fleet.quiet()
    assert robot.agent is None
    assert fleet.listed()[0] == ("Degraded", 'no connection to daemon "robot"')
    fleet.start_daemon(robot)
    fleet.quiet()
    assert fleet.listed() == [("Finished", STOPPED), ("Finished", STOPPED), ("Running", None)]
    assert [runner.phase for runner in station.runners] == ["gone", "running"]


def test_a_restarted_coordinator_still_knows_why() -> None:
    fleet, robot, station = running()
    fleet.end_daemon(robot)
    fleet.step_to_coordinator(robot)
    fleet.kill_coordinator()
    fleet.start_coordinator()
    assert fleet.listed()[0] == ("Stopping", STOPPED)
    fleet.quiet()
    fleet.connect(station)
    fleet.start_daemon(robot)
    fleet.quiet()
    assert fleet.listed()[0] == ("Finished", STOPPED)


def test_a_second_signal_kills_and_nothing_comes_back() -> None:
    fleet, robot, _ = running()
    for runner in robot.runners:
        runner.phase = "hangs"  # asked to stop, it does not
    fleet.end_daemon(robot)
    fleet.quiet()
    assert fleet.listed()[1] == ("Stopping", STOPPED)
    for runner in robot.runners:
        runner.phase = "stopping"
        fleet.kill_runner(runner, robot)
    fleet.quiet()
    assert robot.agent is None
    because = 'daemon "robot": its runner was killed'
    assert fleet.listed()[1] == ("Failed", f"{STOPPED}; {because}")
    fleet.start_daemon(robot)
    fleet.pass_time(60)
    assert not any(runner.lives for runner in robot.runners)


def test_a_start_under_way_is_rolled_back() -> None:
    fleet = SimulatedFleet()
    robot, station = fleet.add_daemon("robot", "robot"), fleet.add_daemon("station", "station")
    fleet.quiet()
    number = fleet.start(dataflow(camera="robot", plot="station"))
    for daemon in (robot, station):
        fleet.step_to_daemon(daemon)
        fleet.step_to_daemon(daemon)
    assert robot.runners
    fleet.end_daemon(robot)
    fleet.quiet()
    assert fleet.listed() == [("Failed", STOPPED)]
    assert number in fleet.failures
    assert not any(runner.lives for runner in (*robot.runners, *station.runners))
