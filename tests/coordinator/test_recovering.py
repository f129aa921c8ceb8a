"""What happens when a daemon, a runner, a machine or the coordinator goes and comes back."""

from __future__ import annotations

from support.fleet_simulation import FakeDaemon, SimulatedFleet, dataflow

from dora_config.protocol.control import DataflowRef, Ended, StopDataflow
from dora_coordinator.settings import Settings
from dora_coordinator.state.records import Phase


def running(settings: Settings | None = None) -> tuple[SimulatedFleet, FakeDaemon, FakeDaemon]:
    fleet = SimulatedFleet(settings)
    robot, station = fleet.add_daemon("robot", "robot"), fleet.add_daemon("station", "station")
    fleet.quiet()
    fleet.start(dataflow(camera="robot", detector="station"))
    fleet.quiet()
    assert fleet.listed() == [("Running", None)]
    return fleet, robot, station


def test_a_stop_that_was_not_confirmed_says_what_is_to_come_until_it_has() -> None:
    fleet, robot, _ = running()
    fleet.disconnect(robot)
    fleet.ask(StopDataflow(dataflow=DataflowRef()))
    fleet.pass_time(100)
    reason = 'the stop was not confirmed by daemon "robot"'
    still = '; nodes that still run on daemon "robot" are stopped when it connects'
    assert fleet.listed() == [("Failed", reason + still)]
    fleet.connect(robot)
    fleet.quiet()
    assert not robot.living(robot.runners[0].dataflow_id)
    assert fleet.listed() == [("Failed", reason)]


def test_a_lost_connection_degrades_and_heals_without_touching_nodes() -> None:
    fleet, robot, _ = running()
    (runner,) = robot.runners
    fleet.disconnect(robot)
    assert fleet.listed() == [("Degraded", 'no connection to daemon "robot"')]
    fleet.connect(robot)
    fleet.quiet()
    assert fleet.listed() == [("Running", None)]
    assert robot.runners == [runner]


def test_a_killed_daemon_adopts_its_runners() -> None:
    fleet, robot, _ = running()
    (runner,) = robot.runners
    fleet.kill_daemon(robot)
    assert fleet.listed()[0][0] == "Degraded"
    fleet.start_daemon(robot)
    fleet.quiet()
    assert robot.runners == [runner]
    assert runner.phase == "running"
    assert fleet.listed() == [("Running", None)]


def test_a_rebooted_machine_gets_its_nodes_again_at_once() -> None:
    fleet, robot, station = running()
    (untouched,) = station.runners
    fleet.reboot(robot)
    fleet.start_daemon(robot)
    fleet.quiet()
    assert [runner.phase for runner in robot.runners] == ["running"]
    assert station.runners == [untouched]
    assert fleet.listed() == [("Running", None)]
    assert any("auto-recovery: re-spawning camera" in line for line in fleet.log)


def test_a_runner_that_keeps_dying_is_tried_every_30_seconds() -> None:
    fleet, robot, _ = running()
    fleet.kill_runner(robot.runners[0], robot)
    fleet.quiet()
    assert robot.runners[0].phase == "running"  # the first time: at once
    fleet.kill_runner(robot.runners[0], robot)
    fleet.quiet()
    assert fleet.listed()[0][0] == "Recovering"
    fleet.pass_time(29)
    assert not robot.living(robot.runners[0].dataflow_id)
    fleet.pass_time(2)
    assert robot.runners[0].phase == "running"
    assert fleet.listed() == [("Running", None)]


def test_a_machine_that_is_lost_soon_after_a_recovery_does_not_wait() -> None:
    fleet, robot, _ = running()
    fleet.kill_runner(robot.runners[0], robot)
    fleet.quiet()
    for _ in range(3):
        fleet.reboot(robot)
        fleet.start_daemon(robot)
        fleet.quiet()
        assert fleet.listed() == [("Running", None)]


def test_a_node_that_fails_at_each_recovery_is_tried_every_30_seconds() -> None:
    fleet, robot, _ = running()
    robot.broken_nodes.add("camera")
    fleet.reboot(robot)
    fleet.start_daemon(robot)
    fleet.quiet()
    attempts = robot.disk[next(iter(fleet.store))].attempt
    fleet.pass_time(29)
    assert robot.disk[next(iter(fleet.store))].attempt == attempts
    robot.broken_nodes.clear()
    fleet.pass_time(2)
    assert fleet.listed() == [("Running", None)]


def test_a_killed_coordinator_recovers_what_runs() -> None:
    fleet, robot, station = running()
    before = (robot.runners[0], station.runners[0])
    fleet.kill_coordinator()
    fleet.start_coordinator()
    status, reason = fleet.listed()[0]
    assert status == "Recovering"
    assert reason == 'waiting for daemon "robot", daemon "station"'
    fleet.connect(robot)
    fleet.quiet()
    assert fleet.listed() == [("Recovering", 'waiting for daemon "station"')]
    fleet.connect(station)
    fleet.quiet()
    assert fleet.listed() == [("Running", None)]
    assert (robot.runners[0], station.runners[0]) == before


def test_after_a_coordinator_restart_one_missing_machine_degrades() -> None:
    fleet, robot, station = running()
    fleet.kill_coordinator()
    fleet.kill_daemon(station)
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.quiet()
    fleet.pass_time(60)
    assert fleet.listed() == [("Degraded", 'no connection to daemon "station"')]


def test_what_nobody_reports_fails_and_comes_back_with_its_nodes() -> None:
    fleet, robot, station = running()
    fleet.kill_coordinator()
    fleet.start_coordinator()
    fleet.pass_time(60)
    status, reason = fleet.listed()[0]
    assert status == "Failed"
    assert "did not report within 60 s" in (reason or "")
    fleet.connect(robot)
    fleet.connect(station)
    fleet.quiet()
    assert fleet.listed() == [("Running", None)]
    assert [len(d.runners) for d in (robot, station)] == [1, 1]


def test_what_nobody_reports_is_started_again_when_the_machines_have_booted() -> None:
    fleet, robot, station = running()
    fleet.kill_coordinator()
    fleet.reboot(robot)
    fleet.reboot(station)
    fleet.start_coordinator()
    fleet.pass_time(90)
    assert fleet.listed()[0][0] == "Failed"
    fleet.start_daemon(robot)
    fleet.quiet()
    assert fleet.listed() == [("Recovering", 'waiting for daemon "station"')]
    fleet.start_daemon(station)
    fleet.quiet()
    assert fleet.listed() == [("Running", None)]
    assert [r.phase for d in (robot, station) for r in d.runners] == ["running", "running"]


def test_a_dataflow_that_is_awaited_can_be_stopped_or_replaced() -> None:
    for replace in (False, True):
        fleet = SimulatedFleet()
        robot = fleet.add_daemon("robot", "robot")
        fleet.quiet()
        spec = dataflow(camera="robot").model_copy(update={"name": "a"})
        fleet.start(spec)
        fleet.quiet()
        fleet.kill_coordinator()
        fleet.start_coordinator()
        fleet.pass_time(60)
        (old,) = robot.runners
        if replace:
            fleet.add_daemon("spare")
            fleet.quiet()
            fleet.start(dataflow(camera=None).model_copy(update={"name": "a"}))
            fleet.quiet()
        else:
            answer = fleet.answers[fleet.ask(StopDataflow(dataflow=DataflowRef(name="a")))]
            assert isinstance(answer, Ended)
        fleet.connect(robot)
        fleet.quiet()
        assert not old.lives
        assert fleet.listed()[0][0] == "Failed"


def test_results_of_nodes_that_ended_unseen_are_told_later() -> None:
    fleet, robot, station = running()
    fleet.disconnect(robot)
    fleet.finish_runner(robot.runners[0], robot, failed={"camera"})
    fleet.finish_runner(station.runners[0], station)
    fleet.quiet()
    assert fleet.listed()[0][0] == "Degraded"
    fleet.connect(robot)
    fleet.quiet()
    assert fleet.listed() == [("Failed", "failed: camera")]
    assert robot.disk[robot.runners[0].dataflow_id].forgotten


def test_a_dataflow_stopped_while_a_machine_was_away_is_stopped_there_when_it_returns() -> None:
    fleet, robot, _ = running()
    fleet.disconnect(robot)
    number = fleet.ask(StopDataflow())
    fleet.quiet()
    assert fleet.listed()[0][0] == "Stopping"
    fleet.pass_time(60)
    assert number in fleet.answers
    status, reason = fleet.listed()[0]
    assert status == "Failed"
    assert 'not confirmed by daemon "robot"' in (reason or "")
    assert robot.runners[0].lives
    fleet.connect(robot)
    fleet.quiet()
    assert not robot.runners[0].lives


def test_a_coordinator_killed_while_stopping_goes_on_stopping() -> None:
    fleet, robot, station = running()
    fleet.ask(StopDataflow())
    fleet.kill_coordinator()  # the stop has reached nobody
    fleet.heal(5)
    assert fleet.listed() == [("Finished", None)]
    assert not any(runner.lives for runner in (*robot.runners, *station.runners))


def test_a_store_that_was_lost_is_filled_from_what_runs() -> None:
    fleet, robot, station = running()
    fleet.kill_coordinator()
    fleet.store.clear()
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.connect(station)
    fleet.quiet()
    assert fleet.listed() == [("Running", None)]
    ((record, _),) = fleet.store.values()
    assert record.phase is Phase.RUNNING
    assert {part.daemon for part in record.parts} == {"robot", "station"}
    assert [runner.phase for runner in (*robot.runners, *station.runners)] == ["running"] * 2


def test_a_silent_daemon_is_given_up_and_may_come_back() -> None:
    fleet, robot, _ = running()
    fleet.pass_time(31, heartbeats=False)
    assert robot.connection is None
    assert fleet.listed()[0][0] == "Degraded"
    fleet.heal(5)
    assert fleet.listed() == [("Running", None)]


def test_a_second_installation_with_the_same_machine_id_is_refused() -> None:
    fleet, robot, _ = running()
    clone = fleet.add_daemon("clone", "robot")
    fleet.quiet()
    assert clone.connection is None
    (refusal,) = [line for line in fleet.log if line.startswith("refused")]
    assert "robot:1" in refusal
    assert "clone:1" in refusal
    assert robot.connection is not None
    fleet.kill_daemon(robot)
    fleet.connect(clone)
    fleet.quiet()
    assert clone.connection is not None


def test_a_runner_that_is_killed_while_it_stops_is_the_reason_of_the_failure() -> None:
    fleet, _, station = running()
    fleet.ask(StopDataflow())
    fleet.kill_runner(station.runners[0], station)
    fleet.quiet()
    assert fleet.listed() == [("Failed", 'daemon "station": its runner was killed')]
