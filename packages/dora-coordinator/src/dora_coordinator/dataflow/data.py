"""Data of one dataflow that the handlers of its phases share; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import DataflowResult
from dora_coordinator.dataflow.backoff import Backoff
from dora_coordinator.dataflow.completion import CompletionRule, rolled_back
from dora_coordinator.dataflow.part import Part
from dora_coordinator.dataflow.parts import Parts
from dora_coordinator.links.links import Links
from dora_coordinator.links.wait import LinkWait
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import CancelTimer, Command, SendToDaemon
from dora_coordinator.state.events import DataflowTimer, TimerKey
from dora_coordinator.state.membership import Membership
from dora_coordinator.state.records import DataflowRecord, Phase


@dataclass(frozen=True, slots=True)
class DataflowContext:
    """What all dataflows share."""

    membership: Membership
    backoff: Backoff
    settings: Settings
    wall_offset: float = 0.0
    """Unix time minus the coordinator's clock."""


@dataclass(slots=True)
class DataflowData:
    context: DataflowContext
    id: str
    name: str | None
    number: int
    """Position in the order of starts."""
    spec: DataflowSpec
    parts: Parts
    completion: CompletionRule
    link_wait: LinkWait
    phase: Phase
    reason: str | None
    """Why it failed as a whole."""
    stop_reason: str | None
    """Why it was stopped, unless a user requested it."""
    unreported: bool
    """Failed only because no daemon reported it in time; it resumes when one does."""
    ended_at: float | None
    """Unix time of its end."""
    grace: float | None
    force: bool
    warnings: tuple[str, ...] = ()
    """What the start left undone."""

    @property
    def label(self) -> str:
        return f'"{self.name}" ({self.id})' if self.name else self.id

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def links(self) -> Links:
        return self.parts.links

    @property
    def has_ended(self) -> bool:
        return self.phase.has_ended

    def timer(self, purpose: DataflowTimer, daemon: str = "") -> TimerKey:
        return TimerKey(purpose, self.id, daemon)

    def cancel_timers(self, *purposes: DataflowTimer) -> list[Command]:
        return [CancelTimer(self.timer(purpose)) for purpose in purposes]

    def is_connected(self, part: Part) -> bool:
        return self.context.membership.is_connected(part.daemon)

    def prepare(self, part: Part) -> SendToDaemon:
        """Return the command to spawn the nodes of a part."""
        return self.parts.prepare(part, self.spec, self.context.membership)

    def end_part(self, part: Part, result: DataflowResult | None) -> None:
        if result is not None and self.phase is Phase.ROLLING_BACK:
            result = rolled_back(result)
        self.parts.end(part, result)

    def note_end(self, now: float) -> None:
        """Record the time of the end; clear it if the dataflow has not ended."""
        self.ended_at = now + self.context.wall_offset if self.has_ended else None

    def record(self) -> DataflowRecord:
        """Return the record with all parts."""
        return self._record(self.parts.values())

    def changed_record(self) -> DataflowRecord:
        """Return the record with the changed parts: a write does not grow with the fleet."""
        return self._record(self.parts.marked())

    def _record(self, parts: Iterable[Part]) -> DataflowRecord:
        return DataflowRecord(
            dataflow_id=self.id,
            name=self.name,
            phase=self.phase,
            parts=tuple(part.record() for part in parts),
            number=self.number,
            reason=self.reason,
            unreported=self.unreported,
            grace=self.grace,
            force=self.force,
            stopped_since=self.stop_reason,
            ended_at=self.ended_at,
        )


def load_data(
    record: DataflowRecord,
    spec: DataflowSpec,
    context: DataflowContext,
    earlier: Links | None = None,
) -> DataflowData:
    """Return the data of a stored or new dataflow; link reports that ``earlier`` has are kept."""
    return DataflowData(
        context=context,
        id=record.dataflow_id,
        name=record.name,
        number=record.number,
        spec=spec,
        parts=Parts(record, spec, earlier),
        completion=CompletionRule(
            spec.resolved.nodes, when_nodes_finish=spec.exit_when_nodes_finish
        ),
        link_wait=LinkWait(context.settings),
        phase=record.phase,
        reason=record.reason,
        stop_reason=record.stopped_since,
        unreported=record.unreported,
        ended_at=record.ended_at,
        grace=record.grace,
        force=record.force,
    )
