"""State machine of one dataflow; pure.

A start is all or nothing: every daemon prepares its part, those that exchange data are linked, then
all are released. Before the first release a failure rolls back what was prepared; after it, a part
that is lost is spawned again on the same daemon and linked to the others again.

| Phases | Module |
| --- | --- |
| preparing, linking | `starting` |
| releasing, running, recovering | `live` |
| rolling back, stopping | `stopping` |
| finished, failed | `ended` |
"""

from __future__ import annotations

from typing import assert_never

from dora_config.protocol.control import DataflowStatus, EndedDataflow
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import DeleteParam, SetParam
from dora_coordinator.dataflow import ended, events, live, starting, stopping
from dora_coordinator.dataflow.completion import ended_dataflow
from dora_coordinator.dataflow.data import DataflowContext, load_data
from dora_coordinator.dataflow.part import names
from dora_coordinator.dataflow.parts import Parts
from dora_coordinator.dataflow.status import status_of
from dora_coordinator.links.links import LinkReported, Links
from dora_coordinator.state.commands import ArmTimer, Command, SaveRecord
from dora_coordinator.state.records import DataflowRecord, Phase


class Dataflow:
    """Changes only through :meth:`handle`."""

    def __init__(
        self,
        record: DataflowRecord,
        spec: DataflowSpec,
        context: DataflowContext,
        earlier: Dataflow | None = None,
    ) -> None:
        """``earlier``: the same dataflow before further parts of it were adopted."""
        links = None if earlier is None else earlier.links
        self._data = load_data(record, spec, context, links)

    def handle(self, event: events.DataflowEvent, now: float) -> list[Command]:
        """Return the commands; the first one stores what changed."""
        data = self._data
        before = data.phase
        data.parts.unmark()
        commands = self._decide(event, now)
        if data.phase is not before:
            data.note_end(now)
        if data.parts.marked() or data.phase is not before:
            commands.insert(0, SaveRecord(data.changed_record()))
        return commands

    def _decide(self, event: events.DataflowEvent, now: float) -> list[Command]:
        match event:
            case events.RecordLoaded():
                return self._resume(now)
            case events.ParamChanged(request=request):
                return self._change_param(request)
            case events.StartAccepted() | events.StopRequested() | events.TimerExpired():
                return self._decide_by_phase(event, now)
            case events.PartReported():
                if event.daemon not in self.parts:
                    return []
                link_commands = self._link_reported(event)
                return [*link_commands, *self._decide_by_phase(event, now)]
            case (
                events.PartGone(daemon=daemon)
                | events.PartAbsent(daemon=daemon)
                | events.DaemonLost(daemon=daemon)
            ):
                return self._decide_by_phase(event, now) if daemon in self.parts else []
            case _ as unreachable:
                assert_never(unreachable)

    def _decide_by_phase(self, event: events.PhaseEvent, now: float) -> list[Command]:
        data = self._data
        match data.phase:
            case Phase.PREPARING | Phase.LINKING:
                return starting.handle(data, event, now)
            case Phase.ROLLING_BACK | Phase.STOPPING:
                return stopping.handle(data, event, now)
            case Phase.RELEASING | Phase.RUNNING | Phase.RECOVERING:
                return live.handle(data, event, now)
            case Phase.FINISHED | Phase.FAILED:
                return ended.handle(data, event, now)
            case _ as unreachable:
                assert_never(unreachable)

    def _resume(self, now: float) -> list[Command]:
        """Continue after a restart of the coordinator."""
        data = self._data
        match data.phase:
            case Phase.PREPARING | Phase.LINKING | Phase.ROLLING_BACK:
                data.phase = Phase.FAILED
                data.reason = data.reason or "the coordinator ended while it was being prepared"
                return []
            case Phase.RELEASING | Phase.RUNNING | Phase.RECOVERING:
                data.phase = Phase.RECOVERING
                at = now + data.settings.recovery_timeout
                return [ArmTimer(data.timer("recovery"), at)]
            case Phase.STOPPING:
                return [stopping.deadline(data, now)]
            case Phase.FINISHED | Phase.FAILED:
                if data.ended_at is None:  # stored by an earlier version
                    data.note_end(now)
                return []
            case _ as unreachable:
                assert_never(unreachable)

    def _change_param(self, request: SetParam | DeleteParam) -> list[Command]:
        """Store a parameter for the runners of later attempts."""
        data = self._data
        values = dict(data.spec.params.get(request.node, {}))
        if isinstance(request, SetParam):
            values[request.key] = request.value
        else:
            values.pop(request.key, None)
        params = {**data.spec.params, request.node: values}
        data.spec = data.spec.model_copy(update={"params": params})
        return [SaveRecord(data.changed_record(), data.spec)]

    def _link_reported(self, event: events.PartReported) -> list[Command]:
        """Update the links of a part; its peers receive a new address."""
        data = self._data
        part, report = data.parts[event.daemon], event.report.link
        if report is None or part.ended or event.report.attempt < part.attempt:
            return []
        changes = data.links.handle(LinkReported(part.daemon, report))
        given_up = data.has_ended and not data.unreported
        if given_up or data.phase in (Phase.PREPARING, Phase.ROLLING_BACK):
            return []
        expected = data.phase in (Phase.LINKING, Phase.STOPPING)  # not worth a log line
        commands = [] if expected else changes.log(data.label)
        if changes.moved:
            commands += data.parts.send_endpoint_to_peers(part)
        if changes.moved or event.registering:  # it may have missed its peers' addresses
            commands.append(data.parts.connect(part))
        return commands

    # ----------------------------------------------------------------------- views

    @property
    def id(self) -> str:
        return self._data.id

    @property
    def name(self) -> str | None:
        return self._data.name

    @property
    def number(self) -> int:
        return self._data.number

    @property
    def spec(self) -> DataflowSpec:
        return self._data.spec

    @property
    def phase(self) -> Phase:
        return self._data.phase

    @property
    def reason(self) -> str | None:
        """Why it failed as a whole."""
        return self._data.reason

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the start left undone."""
        return self._data.warnings

    @property
    def parts(self) -> Parts:
        return self._data.parts

    @property
    def links(self) -> Links:
        return self._data.links

    @property
    def label(self) -> str:
        return self._data.label

    @property
    def waits_for(self) -> str | None:
        """What delays the start, once that takes long."""
        return self._data.link_wait.waits_for

    @property
    def has_ended(self) -> bool:
        return self._data.has_ended

    @property
    def may_resume(self) -> bool:
        """Whether it failed for want of reports: it resumes when a daemon reports it."""
        return self._data.unreported

    @property
    def has_ended_everywhere(self) -> bool:
        """Whether it has ended and no daemon may still have nodes of it."""
        return self.has_ended and all(part.ended for part in self.parts.values())

    def ended_ago(self, now: float) -> float | None:
        """Seconds since its end; None while it has not ended."""
        if self._data.ended_at is None:
            return None
        return max(0.0, now + self._data.context.wall_offset - self._data.ended_at)

    def status(self) -> tuple[DataflowStatus, str | None]:
        """Status and reason, as ``dora list`` shows them."""
        data = self._data
        reasons = (self._failure_reason(), data.stop_reason)
        parts = list(data.parts.values())
        return status_of(data.phase, reasons, parts, data.links, data.context.membership)

    def ended(self) -> EndedDataflow:
        """How it ended, over all daemons."""
        ok = self.phase is Phase.FINISHED
        reason = self._failure_reason()
        return ended_dataflow(self.id, self.name, self.parts.values(), ok=ok, reason=reason)

    def record(self) -> DataflowRecord:
        """The record with all parts."""
        return self._data.record()

    def _failure_reason(self) -> str | None:
        """Why it failed as a whole, and which daemons have yet to stop their part."""
        data = self._data
        left = data.parts.left()
        if data.reason is None or data.unreported or not data.has_ended or not left:
            return data.reason
        still = f"nodes that still run on {names(left)} are stopped when it connects"
        return f"{data.reason}; {still}"
