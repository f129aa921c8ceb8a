"""Index of dataflows: names, archive, adoption of running parts."""

from __future__ import annotations

from support.simulation.fleets import (
    SimulatedFleet,
    dataflow,
    pipeline,
    running_dataflows,
    running_fleet,
)
from support.simulation.machines import SimulatedDaemon

from dora_config.protocol.control import (
    ChangeGraph,
    DataflowList,
    Ended,
    ForgetEnded,
    StopDataflow,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import ConnectInput
from dora_coordinator.state.records import Phase


def test_running_parts_are_adopted_after_the_store_was_lost() -> None:
    fleet, robot, station = running_fleet()
    fleet.lose_store()
    fleet.connect(robot)
    fleet.connect(station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    ((record, _),) = fleet.store.values()
    assert record.phase is Phase.RUNNING
    assert {part.daemon for part in record.parts} == {"robot", "station"}
    assert [runner.phase for runner in (*robot.runners, *station.runners)] == ["running"] * 2


def adopted_on_robot(spec: DataflowSpec) -> tuple[SimulatedFleet, SimulatedDaemon, SimulatedDaemon]:
    """Return a fleet whose store was lost and whose station has not returned yet."""
    fleet, robot, station = running_fleet(spec)
    fleet.lose_store()
    fleet.connect(robot)
    fleet.settle()
    return fleet, robot, station


def test_a_part_that_returns_after_the_stop_is_stopped() -> None:
    fleet, _, station = adopted_on_robot(dataflow(camera="robot", detector="station"))
    number = fleet.request(StopDataflow(grace=2.5))
    fleet.settle()
    assert fleet.listed() == [("Stopping", None)]
    fleet.pass_time(40.0)
    answer = fleet.answers[number]
    assert isinstance(answer, Ended)
    assert answer.dataflows[0].reason == (
        'the stop was not confirmed by daemon "station"; nodes that still run on daemon "station" '
        "are stopped when it connects"
    )
    fleet.connect(station)
    fleet.settle()
    assert [status for status, _ in fleet.listed()] == ["Failed"]
    assert not any(runner.lives for runner in station.runners)
    ((record, _),) = fleet.store.values()
    assert (record.grace, record.stop_requested, len(record.parts)) == (2.5, True, 2)


def test_a_part_that_returns_after_the_others_have_ended_runs_on() -> None:
    fleet, robot, station = adopted_on_robot(dataflow(camera="robot", detector="station"))
    fleet.finish_runner(robot.runners[0], robot)
    fleet.settle()
    assert fleet.listed() == [("Recovering", 'waiting for daemon "station"')]
    fleet.connect(station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    ((record, _),) = fleet.store.values()
    assert record.ended_at is None
    fleet.finish_runner(station.runners[0], station)
    fleet.settle()
    assert fleet.listed() == [("Finished", None)]


def test_an_adopted_part_does_not_hide_that_the_dataflow_was_changed() -> None:
    pair = pipeline(camera="robot", plot="robot").resolved
    lone = dataflow(detector="station").resolved
    whole = pair.model_copy(update={"nodes": (*pair.nodes, *lone.nodes)})
    fleet, _, station = adopted_on_robot(DataflowSpec(resolved=whole))
    edge = ConnectInput(source="camera", output="out", target="plot", input="b")
    assert fleet.request(ChangeGraph(change=edge)) not in fleet.failures
    fleet.settle()
    fleet.connect(station)
    fleet.settle()
    ((record, _),) = fleet.store.values()
    assert record.changes == 1
    for daemon in fleet.daemons.values():
        assert daemon.agent is not None
        assert [report.changes for report in daemon.agent.parts.reports()] == [1]
    assert len(record.parts) == 2


def test_archived_dataflows_are_limited_and_can_be_forgotten() -> None:
    fleet, _ = running_dataflows("a", "b", "c")
    fleet.request(StopDataflow(all=True))
    fleet.settle()
    assert len(fleet.listed()) == 2
    assert len(fleet.store) == 2
    answer = fleet.answers[fleet.request(ForgetEnded())]
    assert isinstance(answer, DataflowList)
    assert len(answer.dataflows) == 2
    assert fleet.listed() == []
    assert not fleet.store


def test_a_refusal_lists_archived_dataflows_of_that_name() -> None:
    fleet, _ = running_dataflows("a")
    fleet.request(StopDataflow())
    fleet.settle()
    failure = fleet.failures[fleet.request(StopDataflow(dataflow="a"))]
    assert failure.message.startswith('no running dataflow with name "a"; archived')
    assert "(Finished)" in failure.message
