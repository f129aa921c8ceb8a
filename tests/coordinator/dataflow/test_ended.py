"""Ended dataflows: resumed, replaced or cleaned up when a daemon returns."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, running_fleet

from dora_config.protocol.control import Ended, StopDataflow


def test_an_unreported_dataflow_fails_and_resumes_when_a_daemon_reports_it() -> None:
    fleet, robot, station = running_fleet()
    fleet.kill_coordinator()
    fleet.start_coordinator()
    fleet.pass_time(60)
    status, reason = fleet.listed()[0]
    assert status == "Failed"
    assert "did not report within 60 s" in (reason or "")
    fleet.connect(robot)
    fleet.connect(station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert [len(d.runners) for d in (robot, station)] == [1, 1]


def test_an_unreported_dataflow_is_spawned_again_after_a_reboot() -> None:
    fleet, robot, station = running_fleet()
    fleet.kill_coordinator()
    fleet.reboot(robot)
    fleet.reboot(station)
    fleet.start_coordinator()
    fleet.pass_time(90)
    assert fleet.listed()[0][0] == "Failed"
    fleet.start_daemon(robot)
    fleet.settle()
    assert fleet.listed() == [("Recovering", 'waiting for daemon "station"')]
    fleet.start_daemon(station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert [r.phase for d in (robot, station) for r in d.runners] == ["running", "running"]


def test_an_unreported_dataflow_can_be_stopped_or_replaced() -> None:
    for replace in (False, True):
        fleet = SimulatedFleet()
        robot = fleet.add_daemon("robot", "robot")
        fleet.settle()
        spec = dataflow(camera="robot").model_copy(update={"name": "a"})
        fleet.start(spec)
        fleet.settle()
        fleet.kill_coordinator()
        fleet.start_coordinator()
        fleet.pass_time(60)
        (old,) = robot.runners
        if replace:
            fleet.add_daemon("spare")
            fleet.settle()
            fleet.start(dataflow(camera=None).model_copy(update={"name": "a"}))
            fleet.settle()
        else:
            answer = fleet.answers[fleet.request(StopDataflow(dataflow="a"))]
            assert isinstance(answer, Ended)
        fleet.connect(robot)
        fleet.settle()
        assert not old.lives
        assert fleet.listed()[0][0] == "Failed"
