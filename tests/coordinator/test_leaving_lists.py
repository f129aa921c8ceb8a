"""How long daemons that ended or were lost are listed, and the age of ended dataflows."""

from __future__ import annotations

from support.fleet_simulation import SimulatedFleet, pipeline

from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DataflowList,
    ListDataflows,
    StopDataflow,
)

HOUR = 3600.0


def daemons(fleet: SimulatedFleet) -> dict[str, str]:
    """How each daemon is listed by `cluster status`."""
    report = fleet.answers[fleet.ask(ClusterStatus())]
    assert isinstance(report, ClusterReport)
    return {
        one.daemon: "connected" if one.connected else "ended" if one.ended else "lost"
        for one in report.daemons
    }


def ended_ago(fleet: SimulatedFleet) -> float | None:
    answer = fleet.answers[fleet.ask(ListDataflows())]
    assert isinstance(answer, DataflowList)
    return answer.dataflows[-1].ended_ago


def two_machines() -> SimulatedFleet:
    fleet = SimulatedFleet()
    for name in ("robot", "base"):
        fleet.add_daemon(name, name)
    fleet.quiet()
    return fleet


def test_a_daemon_that_ended_is_listed_for_ten_minutes() -> None:
    fleet = two_machines()
    fleet.end_daemon(fleet.daemons["robot"])
    fleet.quiet()
    fleet.kill_daemon(fleet.daemons["robot"])
    assert daemons(fleet) == {"robot": "ended", "base": "connected"}
    fleet.pass_time(595)
    assert "robot" in daemons(fleet)
    fleet.pass_time(10)
    assert daemons(fleet) == {"base": "connected"}


def test_a_daemon_that_was_lost_is_listed_for_a_day() -> None:
    fleet = two_machines()
    fleet.kill_daemon(fleet.daemons["robot"])
    fleet.pass_time(23 * HOUR)
    assert daemons(fleet) == {"robot": "lost", "base": "connected"}
    fleet.pass_time(HOUR + 1)
    assert daemons(fleet) == {"base": "connected"}


def test_a_daemon_that_comes_back_stays_listed() -> None:
    fleet = two_machines()
    fleet.kill_daemon(fleet.daemons["robot"])
    fleet.pass_time(20 * HOUR)
    fleet.start_daemon(fleet.daemons["robot"])
    fleet.pass_time(5 * HOUR)
    fleet.kill_daemon(fleet.daemons["robot"])
    fleet.pass_time(20 * HOUR)
    assert daemons(fleet) == {"robot": "lost", "base": "connected"}


def test_a_daemon_that_a_dataflow_waits_for_stays_listed() -> None:
    fleet = two_machines()
    fleet.start(pipeline(camera="robot", inference="base", actuator="base"))
    fleet.quiet()
    fleet.reboot(fleet.daemons["robot"])
    fleet.pass_time(30 * HOUR)
    assert daemons(fleet)["robot"] == "lost"
    assert fleet.listed()[-1][0] == "Degraded"


def test_the_age_of_an_ended_dataflow_survives_the_coordinator() -> None:
    fleet = two_machines()
    fleet.start(pipeline(camera="robot", inference="base", actuator="base"))
    fleet.quiet()
    assert ended_ago(fleet) is None
    fleet.ask(StopDataflow(all=True))
    fleet.quiet()
    assert ended_ago(fleet) == 0.0
    fleet.pass_time(50)
    fleet.kill_coordinator()
    fleet.start_coordinator()
    fleet.pass_time(50)
    assert ended_ago(fleet) == 100.0
