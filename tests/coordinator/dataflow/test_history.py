"""Events that the coordinator keeps of its dataflows."""

from __future__ import annotations

from support.simulation.fleets import SimulatedFleet, dataflow, running_fleet
from support.simulation.machines import SimulatedDaemon

from dora_config.history import entries as happened
from dora_config.history.entries import HistoryEntry, HistoryEvent, split_dropped
from dora_config.protocol.control import ForgetEnded, StopDataflow
from dora_coordinator.coordinator import CoordinatorState
from dora_coordinator.dataflow.history import (
    FIRST_ENTRIES,
    LAST_ENTRIES,
    MAX_REFUSED,
    ClusterHistory,
)
from dora_coordinator.state.events import StoreLoaded
from dora_coordinator.state.records import Phase
from dora_testing.cluster.fleet import COORDINATOR


def running() -> tuple[SimulatedFleet, SimulatedDaemon]:
    fleet, robot, *_ = running_fleet(dataflow(camera="robot"))
    return fleet, robot


def state(fleet: SimulatedFleet) -> CoordinatorState:
    assert fleet.coordinator is not None
    return fleet.coordinator


def events(fleet: SimulatedFleet) -> list[HistoryEvent]:
    return [entry.event for entry in split_dropped(state(fleet).registry.history.saved())[0]]


def phases(fleet: SimulatedFleet) -> list[str]:
    return [event.phase for event in events(fleet) if isinstance(event, happened.PhaseReached)]


def test_a_start_and_a_stop() -> None:
    fleet, _ = running()
    fleet.request(StopDataflow())
    fleet.settle()
    assert events(fleet)[0] == happened.StartPlaced(placement={"robot": ("camera",)})
    assert phases(fleet) == ["releasing", "running", "stopping", "finished"]
    assert happened.UserStop() in events(fleet)
    fleet.request(ForgetEnded())
    assert events(fleet) == []


def test_the_loss_of_a_runner_and_its_back_off() -> None:
    fleet, robot = running()
    for _ in range(3):
        fleet.kill_runner(robot.runners[0], robot)
        fleet.settle()
        fleet.pass_time(1.0, step=0.1)
    lost = [event for event in events(fleet) if isinstance(event, happened.PartRecovering)]
    assert [event.delay for event in lost] == [0.0, 0.0, 1.0]
    assert lost[0].reason == "its runner was killed"
    fleet.pass_time(40.0)
    assert [type(event) for event in events(fleet)].count(happened.PartRuns) == 3


def test_the_loss_of_a_machine() -> None:
    fleet, robot = running()
    fleet.pass_time(40.0, heartbeats=False)
    fleet.disconnect(robot)
    fleet.connect(robot)
    fleet.settle()
    found = [
        event
        for event in events(fleet)
        if isinstance(event, happened.MachineLost | happened.MachineReturned)
    ]
    assert found[-1] == happened.MachineReturned(machine="robot")
    assert isinstance(found[0], happened.MachineLost)
    assert found[0].silent is not None
    assert found[0].silent >= fleet.settings.daemon_silence_limit


def test_events_survive_a_restart_of_the_coordinator() -> None:
    fleet, _ = running()
    kept = state(fleet).registry.history.saved()
    fleet.kill_coordinator()
    fleet.coordinator = CoordinatorState(fleet.settings, COORDINATOR)
    fleet.handle(StoreLoaded(tuple(fleet.store.values()), history=kept))
    assert state(fleet).registry.history.saved()[: len(kept)] == kept
    assert phases(fleet)[-1] == Phase.RECOVERING
    fleet.coordinator = CoordinatorState(fleet.settings, COORDINATOR)
    fleet.handle(StoreLoaded((), history=kept))  # the store was put aside
    assert events(fleet) == []


def test_refused_starts_are_kept_by_name_up_to_a_limit() -> None:
    history = ClusterHistory(100.0)
    for number in range(MAX_REFUSED + 1):
        history.start_refused(f"name {number}", "placement", "no daemon", float(number))
    assert history.refused("name 0") is None
    last = history.refused()
    assert last is not None
    assert last.at == 100.0 + MAX_REFUSED
    assert len(history.saved()) == MAX_REFUSED


def test_the_number_of_dropped_events_survives_a_restart() -> None:
    returned = happened.MachineReturned(machine="robot")
    entries = [
        HistoryEntry(at=float(number), event=returned, dataflow="a")
        for number in range(FIRST_ENTRIES + LAST_ENTRIES + 7)
    ]
    history, again = ClusterHistory(0.0), ClusterHistory(0.0)
    history.load(entries, {"a": None})
    again.load(history.saved(), {"a": None})
    assert again.of("a") == history.of("a")
    assert again.of("a")[1] == 7
