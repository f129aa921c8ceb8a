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


class DataflowData:
    def __init__(
        self,
        record: DataflowRecord,
        spec: DataflowSpec,
        context: DataflowContext,
        earlier: DataflowData | None = None,
    ) -> None:
        """``earlier``: the same dataflow before further parts of it were adopted; its link reports
        are kept.
        """
        self.context = context
        self.id = record.dataflow_id
        self.name = record.name
        self.number = record.number
        """Position in the order of starts."""
        self.spec = spec
        self.parts = Parts(record, spec, None if earlier is None else earlier.links)
        self.completion = CompletionRule(
            spec.resolved.nodes, when_nodes_finish=spec.exit_when_nodes_finish
        )
        self.loading = ""
        """Nodes that a long start waits for."""
        self.link_wait = LinkWait(context.settings)
        self.phase = record.phase
        self.reason = record.reason
        """Why it failed as a whole."""
        self.stop_reason = record.stopped_since
        """Why it was stopped, unless a user requested it."""
        self.unreported = record.unreported
        """Failed only because no daemon reported it in time; it resumes when one does."""
        self.ended_at = record.ended_at
        """Unix time of its end."""
        self.grace = record.grace
        self.force = record.force
        self.rewired = record.rewired
        """Its nodes or edges were changed while it ran."""
        self.stop_requested = record.stop_requested
        """Its stop was requested: parts that are found later are stopped too."""
        self.restart_as = record.restart_as
        """Id of the dataflow that is started once this one has ended."""
        self.not_added: dict[str, str] = {}
        """Why the nodes that were to run on a further daemon were not added, by daemon."""
        self.warnings: tuple[str, ...] = ()
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
            rewired=self.rewired,
            stop_requested=self.stop_requested,
            restart_as=self.restart_as,
        )
