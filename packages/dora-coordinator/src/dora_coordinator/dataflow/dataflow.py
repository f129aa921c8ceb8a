"""State machine of one dataflow; pure.

A start is all or nothing: every daemon prepares its part, those that exchange data are linked, then
all are released. Before the first release a failure rolls back what was prepared; after it, a part
that is lost is spawned again on the same daemon and linked to the others again.

| Phases | Module |
| --- | --- |
| preparing, linking | `starting` |
| releasing, running, recovering | `live` |
| rolling back, stopping | `stopping` |

The phases finished and failed are handled here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dora_config.protocol.control import DataflowStatus, EndedDataflow
from dora_config.protocol.runner import DeleteParam, SetParam
from dora_coordinator.dataflow import events, live, repairs, rewiring, starting, stopping
from dora_coordinator.dataflow.completion import ended_dataflow
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.state.commands import ArmTimer, Command, SaveRecord
from dora_coordinator.state.records import PartState, Phase

_INTERRUPTED: Final = "the coordinator ended while it was being prepared"


def _part_failures(parts: Sequence[Part], stop_reason: str | None) -> str | None:
    """Return the first line of each part's error and the nodes that failed."""
    results = [(part.daemon, part.result) for part in parts if part.result is not None]
    reasons = [] if stop_reason is None else [stop_reason]
    reasons += [
        f'daemon "{daemon}": {result.error.splitlines()[0]}'
        for daemon, result in results
        if result.error
    ]
    failed = [node.node for _, result in results for node in result.root_causes]
    if failed:
        reasons.append(f"failed: {', '.join(failed)}")
    return "; ".join(reasons) or None


class Dataflow(DataflowData):
    """One dataflow; only :meth:`handle` changes it."""

    def handle(self, event: events.DataflowEvent, now: float) -> list[Command]:
        """Return the commands; the first one stores what changed."""
        before, restart_as = self.phase, self.restart_as
        self.parts.unmark()
        commands = self._decide(event, now)
        if self.phase is not before:
            self.note_end(now)
        if self.parts.marked() or self.phase is not before or self.restart_as != restart_as:
            commands.insert(0, SaveRecord(self.changed_record()))
        return commands

    def _decide(self, event: events.DataflowEvent, now: float) -> list[Command]:
        match event:
            case events.RecordLoaded():
                return self._resume(now)
            case events.ParamChanged(request=request):
                return self._change_param(request)
            case events.NodesDescribed():
                return rewiring.describe(self, event, now)
            case events.PartAdded():
                return rewiring.add_part(self, event)
            case events.EndedPartChanged():
                return rewiring.change_ended_part(self, event)
            case events.RepairDue(daemon=daemon, kind=kind):
                return repairs.repair(self, daemon, kind, now)
            case events.StopRequested():
                self.stop_requested = True
                self.restart_as, self.restart_spec = event.restart_as, event.restart_spec
                if event.reason is not None and not self.has_ended:
                    self.stopped_since = event.reason
                return self._decide_by_phase(event, now)
            case events.StartAccepted() | events.TimerExpired():
                return self._decide_by_phase(event, now)
            case events.PartReported():
                if event.daemon not in self.parts:
                    return []
                self._confirm(self.parts[event.daemon])
                link_commands = [*self._compare(event), *self._link_reported(event)]
                return [*link_commands, *self._decide_by_phase(event, now)]
            case (
                events.PartGone(daemon=daemon)
                | events.PartAbsent(daemon=daemon)
                | events.DaemonLost(daemon=daemon)
            ):
                return self._decide_by_phase(event, now) if daemon in self.parts else []

    def _decide_by_phase(self, event: events.PhaseEvent, now: float) -> list[Command]:
        match self.phase:
            case Phase.PREPARING | Phase.LINKING:
                return starting.handle(self, event, now)
            case Phase.ROLLING_BACK | Phase.STOPPING:
                return stopping.handle(self, event, now)
            case Phase.RELEASING | Phase.RUNNING | Phase.RECOVERING:
                return live.handle(self, event, now)
            case Phase.FINISHED | Phase.FAILED:
                return self._after_end(event, now)

    def _after_end(self, event: events.PhaseEvent, now: float) -> list[Command]:
        """Clean up daemons that return, or recover the dataflow if it was given up too early."""
        if self.unreported and isinstance(event, events.PartReported | events.PartAbsent):
            return self._revive(event, now)
        if isinstance(event, events.PartReported) and self._was_released(event):
            self._doubt_ends()
            return self._revive(event, now)
        match event:
            case events.StopRequested():
                self.unreported = False  # a daemon that returns kills its part
                return [SaveRecord(self.changed_record())]
            case events.PartReported(daemon=daemon, report=report):
                part = self.parts[daemon]
                if report.phase == "ended":
                    self.end_part(part, report.result)
                    return [part.forget()]
                return [part.kill()] if event.registering else []
            case events.PartGone(daemon=daemon) | events.PartAbsent(daemon=daemon):
                self.end_part(self.parts[daemon], None)
                return []
            case events.StartAccepted() | events.DaemonLost() | events.TimerExpired():
                return []

    def _was_released(self, event: events.PartReported) -> bool:
        """Whether nodes were released although the stored record is older than their release."""
        interrupted = self.was_interrupted and not self.stop_requested
        return interrupted and event.report.phase in ("running", "lost")

    def _doubt_ends(self) -> None:
        """Expect parts without a result again: they were released and lost by their machines."""
        for part in self.parts.values():
            if part.ended and part.result is None:
                part.state, part.claimed = PartState.PREPARING, True
                self.parts.mark(part)

    def _revive(self, event: events.PartReported | events.PartAbsent, now: float) -> list[Command]:
        """Recover the dataflow, because a daemon that was given up has registered."""
        self.unreported = False
        self.phase = Phase.RECOVERING
        self.reason = None
        for part in self.parts.values():
            part.reported = False
        recovery = ArmTimer(self.timer("recovery"), now + self.settings.recovery_timeout)
        return [recovery, *live.handle(self, event, now)]

    def _resume(self, now: float) -> list[Command]:
        """Continue after a restart of the coordinator."""
        match self.phase:
            case Phase.ROLLING_BACK if self.restart_as is not None:
                return [stopping.deadline(self, now)]  # the machines must return before the start
            case Phase.PREPARING | Phase.LINKING | Phase.ROLLING_BACK:
                self.phase = Phase.FAILED
                self.reason = self.reason or _INTERRUPTED
                return []
            case Phase.RELEASING | Phase.RUNNING | Phase.RECOVERING:
                self.phase = Phase.RECOVERING
                at = now + self.settings.recovery_timeout
                return [ArmTimer(self.timer("recovery"), at)]
            case Phase.STOPPING:
                return [stopping.deadline(self, now)]
            case Phase.FINISHED | Phase.FAILED:
                return []

    def _change_param(self, request: SetParam | DeleteParam) -> list[Command]:
        """Store a parameter for the runners of later attempts."""
        values = dict(self.spec.params.get(request.node, {}))
        if isinstance(request, SetParam):
            values[request.key] = request.value
        else:
            values.pop(request.key, None)
        params = {**self.spec.params, request.node: values}
        self.spec = self.spec.model_copy(update={"params": params})
        return [SaveRecord(self.changed_record(), self.spec)]

    def _confirm(self, part: Part) -> None:
        """Note that the machine of a part has it."""
        if part.claimed:
            part.claimed = False
            self.parts.mark(part)

    def _compare(self, event: events.PartReported) -> list[Command]:
        """Request the nodes of a changed part, or the whole description that its machine keeps."""
        part, report = self.parts[event.daemon], event.report
        if part.ended or report.phase == "ended" or report.attempt < part.attempt:
            return []
        newer = report.changes > self.changes
        if newer and not event.registering and report.changes == part.asked_for:
            newer = False  # what it has described is not signed
        if newer:
            part.asked_for = report.changes
        return [part.describe()] if newer or report.revision != part.revision else []

    def _link_reported(self, event: events.PartReported) -> list[Command]:
        """Update the links of a part; its peers receive a new address."""
        part, report = self.parts[event.daemon], event.report.link
        if report is None or part.ended or event.report.attempt < part.attempt:
            return []
        listening = self.links.all_listen
        changes = self.links.reported(part.daemon, report)
        given_up = self.has_ended and not self.unreported
        if given_up or self.phase is Phase.ROLLING_BACK:
            return []
        if self.phase is Phase.PREPARING:
            introduced = self.links.all_listen and (changes.moved or not listening)
            return self.connect_all() if introduced else []
        expected = self.phase in (Phase.LINKING, Phase.STOPPING)  # not worth a log line
        commands = [] if expected else changes.log(self.label)
        if changes.moved:
            commands += self.parts.send_endpoint_to_peers(part, self.context.membership)
        if changes.moved or event.registering:  # it may have missed its peers' addresses
            commands.append(self.parts.connect(part, self.context.membership))
        return commands

    # ----------------------------------------------------------------------- views

    @property
    def waits_for(self) -> str | None:
        """Condition that delays the start, once the delay is long."""
        loading = self.loading if self.phase is Phase.PREPARING else ""
        return loading or self.missing_links

    @property
    def may_resume(self) -> bool:
        """Whether a report or registration of a daemon can start it again without a request."""
        return self.unreported or self.waits_to_restart

    @property
    def was_interrupted(self) -> bool:
        """Whether its start failed only because the coordinator ended."""
        return self.reason == _INTERRUPTED

    @property
    def has_ended_everywhere(self) -> bool:
        """Whether the dataflow has ended and no daemon may still have nodes of it."""
        return self.has_ended and all(part.ended for part in self.parts.values())

    @property
    def ends_somewhere(self) -> bool:
        """Whether a connected machine has not confirmed the end of its part yet."""
        return any(self.is_connected(part) for part in self.parts.left())

    def ended_ago(self, now: float) -> float | None:
        """Seconds since its end; None while it has not ended."""
        if self.ended_at is None:
            return None
        return max(0.0, now + self.context.wall_offset - self.ended_at)

    def status(self) -> tuple[DataflowStatus, str | None]:
        """Status and reason, as ``dora list`` shows them."""
        failure = self._failure_reason()
        if self.waits_to_restart:
            why = "" if self.not_restarted is None else f" ({self.not_restarted.cause})"
            stop = f"`dora stop {self.name or self.id}` gives it up"
            return "Recovering", f"it is started again when that is possible{why}; {stop}"
        match self.phase:
            case Phase.PREPARING | Phase.LINKING | Phase.RELEASING:
                return "Starting", None
            case Phase.RECOVERING:
                waiting = [part for part in self.parts.left() if not part.reported]
                return "Recovering", f"waiting for {names(waiting)}" if waiting else None
            case Phase.STOPPING | Phase.ROLLING_BACK:
                return "Stopping", failure or self.stopped_since
            case Phase.FINISHED:
                return "Finished", self.stopped_since
            case Phase.FAILED:
                parts = list(self.parts.values())
                return "Failed", failure or _part_failures(parts, self.stopped_since)
            case Phase.RUNNING:
                return self._while_running()

    def _while_running(self) -> tuple[DataflowStatus, str | None]:
        left = self.parts.left()
        disconnected = [part for part in left if not self.is_connected(part)]
        if disconnected:
            return "Degraded", f"no connection to {names(disconnected)}"
        respawning = [part for part in left if part.state is not PartState.RUNNING]
        if respawning:
            return "Recovering", f"spawning again on {names(respawning)}"
        problems = [f'daemon "{part.daemon}": {part.problem}' for part in left if part.problem]
        if problems:
            return "Degraded", "; ".join(problems)
        if self.links.all_linked:
            return "Running", None
        reason = self.links.degraded()
        return ("Degraded", reason) if reason else ("Recovering", "machines are being linked")

    def ended(self) -> EndedDataflow:
        """Return the end of the dataflow, over all daemons."""
        ok = self.phase is Phase.FINISHED
        reason = self._failure_reason()
        return ended_dataflow(self.id, self.name, self.parts.values(), ok=ok, reason=reason)

    def _failure_reason(self) -> str | None:
        """Why it failed as a whole, and which daemons have yet to stop their part."""
        left = self.parts.left()
        if self.reason is None or self.unreported or not self.has_ended or not left:
            return self.reason
        still = f"nodes that still run on {names(left)} are stopped when it connects"
        return f"{self.reason}; {still}"
