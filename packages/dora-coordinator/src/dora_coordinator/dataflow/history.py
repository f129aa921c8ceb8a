"""Events of all dataflows that the coordinator keeps for `dora why`; pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from dora_config.history.entries import (
    TEXT_CHARACTERS,
    CoordinatorHistoryEvent,
    HistoryEntry,
    KeptEvents,
    MachineLost,
    MachineReturned,
    PartRecovering,
    PartRuns,
    PartUncontrolled,
    PhaseReached,
    RollOutFailed,
    SavedEntry,
    StartPlaced,
    StartRefused,
    UserStop,
)
from dora_coordinator.dataflow import events
from dora_coordinator.dataflow.dataflow import Dataflow
from dora_coordinator.state.commands import AppendHistory, Command
from dora_coordinator.state.records import PartState, Phase

FIRST_ENTRIES: Final = 50
"""Number of first entries that are kept for each dataflow."""
LAST_ENTRIES: Final = 150
"""Number of last entries that are kept for each dataflow."""
MAX_REFUSED: Final = 50
"""Most names for which the last refused start is kept."""


@dataclass(frozen=True, slots=True)
class Before:
    """State of a dataflow before an event."""

    phase: Phase
    part: tuple[PartState, int, str | None] | None
    """State, attempt and problem of the part that the event is about."""

    @classmethod
    def of(cls, dataflow: Dataflow, event: events.DataflowEvent) -> Before:
        part = dataflow.parts.get(daemon_of(event))
        return cls(
            dataflow.phase, None if part is None else (part.state, part.attempt, part.problem)
        )


class ClusterHistory:
    """Events by dataflow. Methods that add events also return commands to write them to a file."""

    def __init__(self, wall_offset: float) -> None:
        """``wall_offset``: Unix time minus the clock of the events."""
        self._wall_offset = wall_offset
        self._by_dataflow: dict[str, KeptEvents] = {}
        self._refused: OrderedDict[str, HistoryEntry] = OrderedDict()
        """Last refused start by the name of the dataflow, oldest first."""

    def load(self, entries: Iterable[SavedEntry], known: Mapping[str, object]) -> None:
        """Add the entries of an earlier coordinator about the ``known`` dataflows."""
        for entry in entries:
            if not entry.dataflow or entry.dataflow in known:
                self._keep(entry)

    def saved(self) -> tuple[SavedEntry, ...]:
        """Return everything that is kept, for :meth:`load`."""
        kept = (entry for uuid, one in self._by_dataflow.items() for entry in one.saved(uuid))
        return (*self._refused.values(), *kept)

    def of(self, dataflow_id: str) -> tuple[tuple[HistoryEntry, ...], int]:
        """Return the events of a dataflow, and how many between them were dropped."""
        kept = self._by_dataflow.get(dataflow_id)
        return ((), 0) if kept is None else (kept.entries(), kept.dropped)

    def refused(self, name: str | None = None) -> HistoryEntry | None:
        """Return the last refused start of a name (None: of any)."""
        if name is not None:
            return self._refused.get(name)
        return next(reversed(self._refused.values()), None)

    def forget(self, dataflow_id: str) -> None:
        self._by_dataflow.pop(dataflow_id, None)

    # -------------------------------------------------------------------- additions

    def start_refused(
        self, name: str | None, step: Literal["placement", "build"], reason: str, now: float
    ) -> list[Command]:
        event = StartRefused(step=step, name=name, reason=reason[:TEXT_CHARACTERS])
        return [self._add("", event, now)]

    def start_accepted(self, dataflow: Dataflow, now: float) -> list[Command]:
        if dataflow.name:
            self._refused.pop(dataflow.name, None)
        placement = {part.daemon: part.nodes for part in dataflow.parts.values()}
        return [self._add(dataflow.id, StartPlaced(placement=placement), now)]

    def roll_out_failed(
        self, dataflow: Dataflow, generation: int, reason: str, now: float
    ) -> Command:
        event = RollOutFailed(generation=generation, reason=reason[:TEXT_CHARACTERS])
        return self._add(dataflow.id, event, now)

    def changed(
        self, dataflow: Dataflow, event: events.DataflowEvent, before: Before, now: float
    ) -> list[Command]:
        """Add the entries about an event that a dataflow has handled."""
        found: list[CoordinatorHistoryEvent] = []
        match event:
            case events.StopRequested(force=force, restart_as=None) if not before.phase.has_ended:
                found.append(UserStop(force=force))
            case events.DaemonLost(daemon=daemon, silent=silent):
                found.append(MachineLost(machine=daemon, silent=silent))
            case events.PartReported(daemon=daemon, registering=True):
                found.append(MachineReturned(machine=daemon))
            case events.PartAbsent(daemon=daemon):
                found.append(MachineReturned(machine=daemon))
            case _:
                pass
        found += _part_changed(dataflow, event, before, now)
        if dataflow.phase is not before.phase:
            found.append(phase_reached(dataflow))
        return [self._add(dataflow.id, one, now) for one in found]

    def resumed(
        self, dataflow: Dataflow, machine: str, silence: float, now: float
    ) -> list[Command]:
        """Add that a machine was silent for ``silence`` seconds until now."""
        lost, returned = (
            MachineLost(machine=machine, silent=silence),
            MachineReturned(machine=machine),
        )
        return [self._add(dataflow.id, lost, now), self._add(dataflow.id, returned, now)]

    def loaded(self, dataflow: Dataflow, before: Phase, now: float) -> list[Command]:
        """Add the phase that a dataflow has after the coordinator was restarted."""
        if dataflow.phase is before:
            return []
        return [self._add(dataflow.id, phase_reached(dataflow), now)]

    def _add(self, dataflow_id: str, event: CoordinatorHistoryEvent, now: float) -> Command:
        entry = HistoryEntry(at=now + self._wall_offset, event=event, dataflow=dataflow_id)
        self._keep(entry)
        return AppendHistory(entry)

    def _keep(self, entry: SavedEntry) -> None:
        match entry:
            case HistoryEntry(event=StartRefused(name=name)):
                self._refused[name or ""] = entry
                self._refused.move_to_end(name or "")
                if len(self._refused) > MAX_REFUSED:
                    self._refused.popitem(last=False)
            case _:
                kept = self._by_dataflow.setdefault(
                    entry.dataflow, KeptEvents(first=FIRST_ENTRIES, last=LAST_ENTRIES)
                )
                kept.add(entry)


def phase_reached(dataflow: Dataflow) -> PhaseReached:
    """Return the event about the phase that a dataflow has now."""
    reason: str | None = None
    match dataflow.phase:
        case Phase.ROLLING_BACK:
            reason = dataflow.reason
        case Phase.STOPPING:
            restart = None if dataflow.restart_as is None else "a user requested a restart"
            reason = dataflow.stopped_since or restart
        case Phase.FAILED:
            reason = dataflow.status()[1]
        case _:
            pass
    return PhaseReached(
        phase=dataflow.phase.value, reason=None if reason is None else reason[:TEXT_CHARACTERS]
    )


def daemon_of(event: events.DataflowEvent) -> str:
    """Return the daemon that an event is about; empty: it is about the whole dataflow."""
    match event:
        case (
            events.PartReported(daemon=daemon)
            | events.PartGone(daemon=daemon)
            | events.PartAbsent(daemon=daemon)
            | events.DaemonLost(daemon=daemon)
            | events.RepairDue(daemon=daemon)
            | events.NodesDescribed(daemon=daemon)
            | events.PartAdded(daemon=daemon)
            | events.EndedPartChanged(daemon=daemon)
        ):
            return daemon
        case _:
            return ""


def _part_changed(
    dataflow: Dataflow, event: events.DataflowEvent, before: Before, now: float
) -> list[CoordinatorHistoryEvent]:
    part = dataflow.parts.get(daemon_of(event))
    if part is None or before.part is None:
        return []
    state, attempt, problem = before.part
    if part.problem != problem:
        return [PartUncontrolled(machine=part.daemon, reason=part.problem)]
    lost = state is not PartState.MISSING and part.recovery_reason is not None
    if lost and (part.state is PartState.MISSING or part.attempt > attempt):
        delay: float | None = 0.0
        if part.state is PartState.MISSING:
            connected = dataflow.is_connected(part)
            delay = part.retry.wait(now) if connected else None
        reason = (part.recovery_reason or "")[:TEXT_CHARACTERS]
        return [PartRecovering(machine=part.daemon, nodes=part.nodes, reason=reason, delay=delay)]
    if state is not PartState.RUNNING and part.state is PartState.RUNNING and part.attempt > 1:
        return [PartRuns(machine=part.daemon)]
    return []
