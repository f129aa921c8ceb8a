"""Requests that start, stop, restart or wait for dataflows."""

from __future__ import annotations

from support.simulation.fleet_simulation import (
    dataflow,
    fleet_of,
    running_dataflows,
)

from dora_config.protocol.control import (
    DataflowRef,
    Ended,
    RestartDataflow,
    Restarted,
    Started,
    StopDataflow,
    WaitForEnd,
)


def test_a_second_running_dataflow_of_a_name_is_refused() -> None:
    fleet = fleet_of("robot")
    spec = dataflow(camera="robot").model_copy(update={"name": "patrol"})
    fleet.start(spec)
    fleet.settle()
    second = fleet.start(spec)
    failure = fleet.failures[second]
    assert failure.code == "conflict"
    assert 'there is already a running dataflow with name "patrol"' in failure.message
    fleet.ask(StopDataflow())
    fleet.settle()
    third = fleet.start(spec)
    fleet.settle()
    assert isinstance(fleet.answers[third], Started)


def test_stop_and_wait_are_answered_when_all_nodes_have_ended() -> None:
    fleet, daemon = running_dataflows("a")
    waiting = fleet.ask(WaitForEnd())
    stopping = fleet.ask(StopDataflow(dataflow=DataflowRef(name="a")))
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
    assert fleet.failures[fleet.ask(StopDataflow())].code == "nothing_runs"
    fleet, _ = running_dataflows("a", "b")
    failure = fleet.failures[fleet.ask(StopDataflow())]
    assert failure.code == "ambiguous"
    assert '"a"' in failure.message
    assert '"b"' in failure.message


def test_stop_all_waits_for_all_dataflows() -> None:
    fleet, _ = running_dataflows("a", "b")
    number = fleet.ask(StopDataflow(all=True))
    fleet.settle()
    answer = fleet.answers[number]
    assert isinstance(answer, Ended)
    assert {one.name for one in answer.dataflows} == {"a", "b"}


def test_restart_stops_and_starts_the_same_dataflow() -> None:
    fleet, daemon = running_dataflows("a")
    (old,) = fleet.store
    number = fleet.ask(RestartDataflow(dataflow=DataflowRef(name="a")))
    fleet.settle()
    answer = fleet.answers[number]
    assert isinstance(answer, Restarted)
    assert answer.old == old
    assert [len(daemon.living(one)) for one in (answer.old, answer.new)] == [0, 1]
    assert fleet.listed() == [("Finished", None), ("Running", None)]


def test_a_restart_fails_when_its_daemon_is_lost() -> None:
    fleet, daemon = running_dataflows("a")
    number = fleet.ask(RestartDataflow(dataflow=DataflowRef(name="a")))
    fleet.step_to_daemon(daemon)
    fleet.step_runner(daemon.runners[0], daemon)
    fleet.step_runner_event(daemon)
    fleet.step_to_coordinator(daemon)
    assert number not in fleet.failures  # the daemon is connected: the start has begun
    fleet.disconnect(daemon)
    fleet.settle()
    assert "was lost while it prepared" in fleet.failures[number].message
