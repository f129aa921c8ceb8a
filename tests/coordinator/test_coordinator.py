"""Listing of lost and ended daemons, silence, refusals, age of ended dataflows."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, fleet_of, pipeline, running_fleet

from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DataflowList,
    ListDataflows,
    StopDataflow,
)

HOUR = 3600.0


def daemons(fleet: SimulatedFleet) -> dict[str, str]:
    """Return the state of each daemon in `cluster status`."""
    report = fleet.answers[fleet.request(ClusterStatus())]
    assert isinstance(report, ClusterReport)
    return {
        one.daemon: "connected" if one.connected else "ended" if one.ended else "lost"
        for one in report.machines
    }


def ended_ago(fleet: SimulatedFleet) -> float | None:
    answer = fleet.answers[fleet.request(ListDataflows())]
    assert isinstance(answer, DataflowList)
    return answer.dataflows[-1].ended_ago


def test_a_daemon_that_ended_is_listed_for_ten_minutes() -> None:
    fleet = fleet_of("robot", "base")
    fleet.end_daemon(fleet.daemons["robot"])
    fleet.settle()
    fleet.kill_daemon(fleet.daemons["robot"])
    assert daemons(fleet) == {"robot": "ended", "base": "connected"}
    fleet.pass_time(595)
    assert "robot" in daemons(fleet)
    fleet.pass_time(10)
    assert daemons(fleet) == {"base": "connected"}


def test_a_daemon_that_was_lost_is_listed_for_a_day() -> None:
    fleet = fleet_of("robot", "base")
    fleet.kill_daemon(fleet.daemons["robot"])
    fleet.pass_time(23 * HOUR, step=10.0)
    assert daemons(fleet) == {"robot": "lost", "base": "connected"}
    fleet.pass_time(HOUR + 1)
    assert daemons(fleet) == {"base": "connected"}


def test_a_daemon_that_returns_stays_listed() -> None:
    fleet = fleet_of("robot", "base")
    fleet.kill_daemon(fleet.daemons["robot"])
    fleet.pass_time(20 * HOUR, step=10.0)
    fleet.start_daemon(fleet.daemons["robot"])
    fleet.pass_time(5 * HOUR, step=10.0)
    fleet.kill_daemon(fleet.daemons["robot"])
    fleet.pass_time(20 * HOUR, step=10.0)
    assert daemons(fleet) == {"robot": "lost", "base": "connected"}


def test_a_daemon_that_a_dataflow_waits_for_stays_listed() -> None:
    fleet = fleet_of("robot", "base")
    fleet.start(pipeline(camera="robot", inference="base", actuator="base"))
    fleet.settle()
    fleet.reboot(fleet.daemons["robot"])
    fleet.pass_time(30 * HOUR, step=10.0)
    assert daemons(fleet)["robot"] == "lost"
    assert fleet.listed()[-1][0] == "Degraded"


def test_the_age_of_an_ended_dataflow_survives_a_restart() -> None:
    fleet = fleet_of("robot", "base")
    fleet.start(pipeline(camera="robot", inference="base", actuator="base"))
    fleet.settle()
    assert ended_ago(fleet) is None
    fleet.request(StopDataflow(all=True))
    fleet.settle()
    assert ended_ago(fleet) == 0.0
    fleet.pass_time(50)
    fleet.kill_coordinator()
    fleet.start_coordinator()
    fleet.pass_time(50)
    assert ended_ago(fleet) == 100.0


def test_a_silent_daemon_is_disconnected_and_may_return() -> None:
    fleet, robot, _ = running_fleet()
    fleet.pass_time(31, heartbeats=False)
    assert robot.connection is None
    assert fleet.listed()[0][0] == "Degraded"
    fleet.heal(5)
    assert fleet.listed() == [("Running", None)]


def test_a_second_installation_with_the_same_machine_id_is_refused() -> None:
    fleet, robot, _ = running_fleet()
    clone = fleet.add_daemon("clone", "robot")
    fleet.settle()
    assert clone.connection is None
    (refusal,) = [line for line in fleet.log if line.startswith("refused")]
    assert "robot:1" in refusal
    assert "clone:1" in refusal
    assert robot.connection is not None
    fleet.kill_daemon(robot)
    fleet.connect(clone)
    fleet.settle()
    assert clone.connection is not None
