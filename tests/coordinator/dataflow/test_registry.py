"""Index of dataflows: names, archive, adoption of running parts."""

from __future__ import annotations

from support.simulation.fleet_simulation import (
    SimulatedFleet,
    dataflow,
    running_dataflows,
    running_fleet,
)
from support.simulation.machine_simulation import FakeDaemon

from dora_config.protocol.control import (
    DataflowList,
    DataflowRef,
    ForgetEnded,
    StopDataflow,
)
from dora_coordinator.state.records import Phase


def running() -> tuple[SimulatedFleet, FakeDaemon, FakeDaemon]:
    return running_fleet(dataflow(camera="robot", detector="station"))


def test_running_parts_are_adopted_after_the_store_was_lost() -> None:
    fleet, robot, station = running()
    fleet.kill_coordinator()
    fleet.store.clear()
    fleet.start_coordinator()
    fleet.connect(robot)
    fleet.connect(station)
    fleet.settle()
    assert fleet.listed() == [("Running", None)]
    ((record, _),) = fleet.store.values()
    assert record.phase is Phase.RUNNING
    assert {part.daemon for part in record.parts} == {"robot", "station"}
    assert [runner.phase for runner in (*robot.runners, *station.runners)] == ["running"] * 2


def test_archived_dataflows_are_limited_and_can_be_forgotten() -> None:
    fleet, _ = running_dataflows("a", "b", "c")
    fleet.ask(StopDataflow(all=True))
    fleet.settle()
    assert len(fleet.listed()) == 2
    assert len(fleet.store) == 2
    answer = fleet.answers[fleet.ask(ForgetEnded())]
    assert isinstance(answer, DataflowList)
    assert len(answer.dataflows) == 2
    assert fleet.listed() == []
    assert not fleet.store


def test_a_refusal_lists_archived_dataflows_of_that_name() -> None:
    fleet, _ = running_dataflows("a")
    fleet.ask(StopDataflow())
    fleet.settle()
    failure = fleet.failures[fleet.ask(StopDataflow(dataflow=DataflowRef(name="a")))]
    assert failure.message.startswith('no running dataflow with name "a"; archived')
    assert "(Finished)" in failure.message
