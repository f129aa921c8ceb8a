"""Requests that start, stop, restart or wait for dataflows."""

from __future__ import annotations

import pytest
from support.simulation.fleets import (
    SimulatedFleet,
    dataflow,
    fleet_of,
    running_dataflows,
    running_fleet,
)
from support.simulation.machines import SimulatedDaemon

from dora_config.history.entries import StartRefused
from dora_config.protocol.control import (
    Destroy,
    Destroyed,
    Ended,
    RestartDataflow,
    Restarted,
    Started,
    StopDataflow,
    WaitForEnd,
)
from dora_config.protocol.daemon import Heartbeat

RESTART = RestartDataflow(dataflow="a")


def test_a_second_running_dataflow_of_a_name_is_refused() -> None:
    fleet = fleet_of("robot")
    spec = dataflow(camera="robot").model_copy(update={"name": "patrol"})
    fleet.start(spec)
    fleet.settle()
    second = fleet.start(spec)
    failure = fleet.failures[second]
    assert failure.code == "conflict"
    assert 'there is already a running dataflow with name "patrol"' in failure.message
    fleet.request(StopDataflow())
    fleet.settle()
    third = fleet.start(spec)
    fleet.settle()
    assert isinstance(fleet.answers[third], Started)


def test_stop_and_wait_are_answered_when_all_nodes_have_ended() -> None:
    fleet, daemon = running_dataflows("a")
    waiting = fleet.request(WaitForEnd())
    stopping = fleet.request(StopDataflow(dataflow="a"))
    fleet.step_to_daemon(daemon)
    assert not {waiting, stopping} & set(fleet.answers)
    fleet.settle()
    for number in (waiting, stopping):
        answer = fleet.answers[number]
        assert isinstance(answer, Ended)
        (ended,) = answer.dataflows
        assert (ended.name, ended.ok, len(ended.nodes)) == ("a", True, 2)


def test_stop_without_a_name_needs_exactly_one_running_dataflow() -> None:
    fleet, _ = running_dataflows()
    assert fleet.failures[fleet.request(StopDataflow())].code == "nothing_runs"
    fleet, _ = running_dataflows("a", "b")
    failure = fleet.failures[fleet.request(StopDataflow())]
    assert failure.code == "ambiguous"
    assert '"a"' in failure.message
    assert '"b"' in failure.message


def test_stop_all_waits_for_all_dataflows() -> None:
    fleet, _ = running_dataflows("a", "b")
    number = fleet.request(StopDataflow(all=True))
    fleet.settle()
    answer = fleet.answers[number]
    assert isinstance(answer, Ended)
    assert {one.name for one in answer.dataflows} == {"a", "b"}


def test_restart_stops_and_starts_the_same_dataflow() -> None:
    fleet, daemon = running_dataflows("a")
    (old,) = fleet.store
    number = fleet.request(RESTART)
    fleet.settle()
    answer = fleet.answers[number]
    assert isinstance(answer, Restarted)
    assert answer.old == old
    assert [len(daemon.living(one)) for one in (answer.old, answer.new)] == [0, 1]
    assert fleet.listed() == [("Finished", None), ("Running", None)]


def test_a_restart_is_refused_before_the_stop_if_a_machine_is_away() -> None:
    fleet, robot, station = running_fleet()
    fleet.disconnect(robot)
    number = fleet.request(RestartDataflow())
    fleet.settle()
    assert "was not restarted, since it could not" in fleet.failures[number].message
    assert 'no matching daemon for machine id "robot"' in fleet.failures[number].message
    fleet.connect(robot)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    assert [len(one.runners) for one in (robot, station)] == [1, 1]


def test_a_restart_is_refused_if_a_machine_has_just_lost_its_power() -> None:
    fleet, robot, station = running_fleet()
    fleet.now += 2.0
    station.send(Heartbeat())
    fleet.step_to_coordinator(station)
    number = fleet.request(RestartDataflow())
    for _ in range(7):  # nothing of the robot arrives
        fleet.now += 1.0
        fleet.fire_due()
    assert fleet.failures[number].code == "placement"
    assert fleet.failures[number].message.endswith(
        'was not restarted and runs on: daemon "robot" has not answered for 5 s'
    )
    fleet.settle()
    assert [len(one.runners) for one in (robot, station)] == [1, 1]


def test_a_restart_whose_machine_is_lost_meanwhile_starts_when_it_is_back() -> None:
    for back in ("rebooted", "ran on"):
        fleet, robot, station = running_fleet()
        number = fleet.request(RestartDataflow())
        fleet.disconnect(robot)  # it has not received the stop
        fleet.settle()
        fleet.pass_time(60.0)
        assert "was stopped but not started again: " in fleet.failures[number].message
        assert "it is started when that is possible" in fleet.failures[number].message
        ((status, reason),) = fleet.listed()
        assert (status, str(reason)[:45]) == (
            "Recovering",
            "it is started again when that is possible (no",
        )
        if back == "rebooted":
            fleet.reboot(robot)
            fleet.start_daemon(robot)
        else:
            fleet.connect(robot)
        fleet.pass_time(30.0)
        assert fleet.listed()[-1] == ("Running", None)
        living = [(d.name, r.phase) for d in (robot, station) for r in d.runners if r.lives]
        assert living == [("robot", "running"), ("station", "running")]


def test_a_restart_that_fails_because_of_a_machine_is_repeated() -> None:
    fleet, robot, station = running_fleet()
    number = fleet.request(RestartDataflow())
    while not any(runner.phase == "starting" for runner in robot.runners):
        for daemon in (robot, station):
            fleet.step_to_daemon(daemon)
            for runner in list(daemon.runners):
                if runner.phase == "stopping":
                    fleet.step_runner(runner, daemon)
            fleet.step_runner_event(daemon)
            fleet.step_to_coordinator(daemon)
    fleet.reboot(robot)
    fleet.settle()
    assert "was lost while it prepared" in fleet.failures[number].message
    fleet.pass_time(20.0)
    fleet.start_daemon(robot)
    fleet.pass_time(30.0)
    assert fleet.listed() == [("Finished", None), ("Running", None)]
    living = [(d.name, r.phase) for d in (robot, station) for r in d.runners if r.lives]
    assert living == [("robot", "running"), ("station", "running")]


def test_a_restart_fails_when_its_daemon_is_lost() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.request(RESTART)
    fleet.step_to_daemon(daemon)
    fleet.step_runner(daemon.runners[0], daemon)
    fleet.step_runner_event(daemon)
    fleet.step_to_coordinator(daemon)
    assert number not in fleet.failures  # the daemon is connected: the start has begun
    fleet.disconnect(daemon)
    fleet.settle()
    assert "was lost while it prepared" in fleet.failures[number].message


def test_a_second_restart_is_refused_while_the_first_one_waits() -> None:
    fleet, daemon = running_dataflows("a")
    fleet.request(RESTART)
    fleet.leave()
    failure = fleet.failures[fleet.request(RESTART)]
    assert failure.code == "conflict"
    assert "is being restarted already; `dora stop` ends it" in failure.message
    fleet.settle()
    assert fleet.listed() == [("Finished", None), ("Running", None)]
    assert len([runner for runner in daemon.runners if runner.lives]) == 1
    again = fleet.request(RESTART)
    fleet.settle()
    assert isinstance(fleet.answers[again], Restarted)


@pytest.mark.parametrize("stop", [StopDataflow(dataflow="a"), StopDataflow()])
def test_a_stop_during_a_restart_prevents_the_new_start(stop: StopDataflow) -> None:
    fleet, _ = running_dataflows("a")
    restarting, stopping = fleet.request(RESTART), fleet.request(stop)
    assert "is stopped and not started again: a stop was" in fleet.failures[restarting].message
    fleet.settle()
    assert isinstance(fleet.answers[stopping], Ended)
    assert fleet.listed() == [("Finished", None)]


def test_a_stop_of_another_dataflow_does_not_concern_a_restart() -> None:
    fleet, _ = running_dataflows("a", "b")
    restarting = fleet.request(RESTART)
    fleet.request(StopDataflow(dataflow="b"))
    fleet.settle()
    assert isinstance(fleet.answers[restarting], Restarted)


def test_nothing_is_started_again_while_the_coordinator_ends() -> None:
    fleet, daemon = running_dataflows("a", "b")
    restarting = fleet.request(RESTART)
    assert fleet.failures[fleet.request(Destroy())].code == "conflict"
    ending = fleet.request(Destroy(force=True))
    assert fleet.failures[restarting].message.endswith("a stop was requested")
    late = fleet.request(RestartDataflow(dataflow="b"))
    assert fleet.failures[late].message == "the coordinator is ending; start refused"
    fleet.settle()
    assert isinstance(fleet.answers[ending], Destroyed)
    assert not any(runner.lives for runner in daemon.runners)
    assert len(fleet.store) == 2


def test_an_earlier_start_of_a_dataflow_ends_when_it_is_reported() -> None:
    fleet, daemon = running_dataflows("a")
    fleet.lose_store()  # the first start is not known when the second one takes its name
    other = fleet.add_daemon("other")
    fleet.pass_time(1.0)
    fleet.start(dataflow(lone=None).model_copy(update={"name": "a"}))
    fleet.settle()
    fleet.connect(daemon)
    fleet.settle()
    assert [one.lives for one in daemon.runners] == [False]
    assert any('has a part of an earlier start of "a": stopped' in line for line in fleet.log)
    assert [one.lives for one in other.runners] == [True]
    assert fleet.listed() == [("Running", None)]


def start_coordinator_again(fleet: SimulatedFleet, daemon: SimulatedDaemon) -> None:
    fleet.kill_coordinator()
    fleet.start_coordinator()
    fleet.connect(daemon)
    fleet.settle()


def test_a_restart_continues_after_the_coordinator_was_killed() -> None:
    fleet, daemon = running_dataflows("a")
    (old,) = fleet.store
    fleet.request(RESTART)
    start_coordinator_again(fleet, daemon)
    assert fleet.listed() == [("Finished", None), ("Running", None)]
    (new,) = (runner.dataflow_id for runner in daemon.runners if runner.lives)
    assert new != old
    start_coordinator_again(fleet, daemon)  # a restart that was completed is not repeated
    assert fleet.listed() == [("Finished", None), ("Running", None)]


def test_a_restart_of_a_dataflow_that_starts_continues_as_well() -> None:
    fleet = fleet_of("robot")
    (daemon,) = fleet.daemons.values()
    fleet.start(dataflow(camera="robot").model_copy(update={"name": "a"}))
    fleet.step_to_daemon(daemon)
    fleet.request(RESTART)
    start_coordinator_again(fleet, daemon)
    assert [status for status, _ in fleet.listed()] == ["Failed", "Running"]
    assert [runner.lives for runner in daemon.runners] == [False, True]


def test_a_stop_ends_a_restart_of_an_earlier_coordinator() -> None:
    fleet, daemon = running_dataflows("a")
    fleet.request(RESTART)
    fleet.kill_coordinator()
    fleet.start_coordinator()
    assert fleet.failures[fleet.request(RESTART)].code == "conflict"
    fleet.request(StopDataflow())
    start_coordinator_again(fleet, daemon)
    assert fleet.listed() == [("Finished", None)]


def test_a_restart_without_a_client_that_fails_is_explained() -> None:
    fleet, _ = running_dataflows("a")
    fleet.request(RESTART)
    fleet.kill_coordinator()
    fleet.start_coordinator()
    fleet.pass_time(120)  # the machine does not return
    ((status, reason),) = fleet.listed()
    assert status == "Recovering"
    assert reason is not None
    assert reason.startswith("it is started again when that is possible (")
    assert "`dora stop a` gives it up" in reason
    assert len([line for line in fleet.log if "was stopped but not started again: " in line]) == 1
    assert fleet.coordinator is not None
    refused = fleet.coordinator.registry.history.refused("a")
    assert refused is not None
    assert isinstance(refused.event, StartRefused)
