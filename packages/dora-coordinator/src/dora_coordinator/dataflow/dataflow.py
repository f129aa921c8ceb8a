"""The life of one dataflow: one table over phase and event; pure.

A start is all or nothing: every daemon prepares its part, those that exchange data are linked, then
all are released. Before the first release a failure rolls back what was prepared; after it, a part
that is lost is spawned again on the same daemon, and linked to the others again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from dora_config.protocol.control import DataflowStatus, EndedDataflow
from dora_config.protocol.daemon import PartReport, StopPart
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import DataflowResult, DeleteParam, SetParam
from dora_coordinator.dataflow.backoff import Backoff
from dora_coordinator.dataflow.completion import (
    CompletionRule,
    ended_dataflow,
    ended_early,
    late_start,
    stopped_with,
    taken_back,
    unlinked_start,
)
from dora_coordinator.dataflow.events import (
    DaemonLost,
    DataflowEvent,
    PartAbsent,
    PartGone,
    PartReported,
    StartAccepted,
    StopRequested,
    TimerExpired,
)
from dora_coordinator.dataflow.link_wait import LinkWait
from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.dataflow.parts import Parts
from dora_coordinator.dataflow.records import DataflowRecord, PartState, Phase
from dora_coordinator.dataflow.status import status_of
from dora_coordinator.settings import Settings
from dora_coordinator.state.commands import (
    ArmTimer,
    CancelTimer,
    Command,
    Log,
    SaveRecord,
    SendToDaemon,
)
from dora_coordinator.state.events import TimerKey
from dora_coordinator.state.membership import Membership

DEFAULT_GRACE = 10.0
"""Seconds from STOP to SIGTERM when a stop names none."""


@dataclass(frozen=True, slots=True)
class DataflowContext:
    """What all dataflows share."""

    membership: Membership
    backoff: Backoff
    settings: Settings
    wall_offset: float = 0.0
    """Unix time minus the coordinator's clock."""


class Dataflow:
    """State changes through :meth:`handle` only."""

    def __init__(
        self, record: DataflowRecord, spec: DataflowSpec, context: DataflowContext
    ) -> None:
        self.id = record.dataflow_id
        self.name = record.name
        self.spec = spec
        self.number = record.number
        self.phase = record.phase
        self.reason = record.reason
        self.parts = Parts(record, spec)
        self.links = self.parts.links
        self._ends = CompletionRule(
            spec.resolved.nodes, when_nodes_finish=spec.exit_when_nodes_finish
        )
        self.warnings: tuple[str, ...] = ()
        """What its start left undone."""
        self._link_wait = LinkWait(context.settings)
        self._unreported = record.unreported
        self._grace = record.grace
        self._force = record.force
        self._stopped_since = record.stopped_since
        self._ended_at = record.ended_at
        self._context = context

    # ------------------------------------------------------------------------ the door

    def resume(self, now: float) -> list[Command]:
        """Go on after a restart of the coordinator."""
        match self.phase:
            case Phase.PREPARING | Phase.LINKING | Phase.ROLLING_BACK:
                self.phase = Phase.FAILED
                self.reason = self.reason or "the coordinator ended while it was being prepared"
                self._note_end(now)
                return [SaveRecord(self._changes())]
            case Phase.RELEASING | Phase.RUNNING | Phase.RECOVERING:
                self.phase = Phase.RECOVERING
                at = now + self._context.settings.recovery_timeout
                return [SaveRecord(self._changes()), ArmTimer(self._timer("recovery"), at)]
            case Phase.STOPPING:
                return [self._stop_deadline(now)]
            case Phase.FINISHED | Phase.FAILED:
                if self._ended_at is None:  # stored by an earlier version
                    self._note_end(now)
                return []

    def handle(self, event: DataflowEvent, now: float) -> list[Command]:
        """What follows from ``event``; a change that must survive is saved before anything else."""
        before = self.phase
        self.parts.unmark()
        commands = self._decide(event, now)
        if self.phase is not before:
            self._note_end(now)
        if self.parts.marked() or self.phase is not before:
            commands.insert(0, SaveRecord(self._changes()))
        return commands

    def param_changed(self, request: SetParam | DeleteParam) -> list[Command]:
        """A runner has taken a parameter: whatever is spawned again is to have it too."""
        values = dict(self.spec.params.get(request.node, {}))
        if isinstance(request, SetParam):
            values[request.key] = request.value
        else:
            values.pop(request.key, None)
        params = {**self.spec.params, request.node: values}
        self.spec = self.spec.model_copy(update={"params": params})
        return [SaveRecord(self._changes(), self.spec)]

    def _decide(self, event: DataflowEvent, now: float) -> list[Command]:
        if isinstance(event, PartReported | PartGone | PartAbsent | DaemonLost):
            part = self.parts.get(event.daemon)
            if part is None:
                return []
        told = self._hear_of_link(event) if isinstance(event, PartReported) else []
        return [*told, *self._decide_by_phase(event, now)]

    def _decide_by_phase(self, event: DataflowEvent, now: float) -> list[Command]:
        match self.phase:
            case Phase.PREPARING | Phase.LINKING:
                return self._while_preparing(event, now)
            case Phase.ROLLING_BACK | Phase.STOPPING:
                return self._while_stopping(event, now)
            case Phase.RELEASING | Phase.RUNNING | Phase.RECOVERING:
                return self._while_live(event, now)
            case Phase.FINISHED | Phase.FAILED:
                return self._after_end(event, now)
            case _ as unreachable:
                assert_never(unreachable)

    # ---------------------------------------------------------------------- preparing

    def _while_preparing(self, event: DataflowEvent, now: float) -> list[Command]:
        match event:
            case StartAccepted():
                at = now + self._context.settings.start_timeout
                return [
                    *(self._prepare(part) for part in self.parts.values()),
                    ArmTimer(self._timer("start"), at),
                ]
            case PartReported(daemon=daemon, report=PartReport(phase="prepared")):
                self.parts.move(self.parts[daemon], PartState.PREPARED)
                return self._go_on(now)
            case PartReported(daemon=daemon, report=PartReport(phase="ended", result=result)):
                self._end(self.parts[daemon], result)
                return self._roll_back(ended_early(event.report, daemon), now)
            case PartReported(daemon=daemon, report=PartReport(stopped=True)):
                return self._roll_back(stopped_with(daemon), now)
            case PartReported():
                return []
            case PartGone(daemon=daemon, reason=reason, node=node, result=result):
                where = f'daemon "{daemon}"' + (f', node "{node}"' if node else "")
                self._end(self.parts[daemon], result)
                return self._roll_back(f"{where}: {reason}", now)
            case PartAbsent(daemon=daemon):
                self._end(self.parts[daemon], None)
                return self._roll_back(
                    f'daemon "{daemon}" was restarted while it prepared its nodes', now
                )
            case DaemonLost(daemon=daemon):
                return self._roll_back(
                    f'the connection to daemon "{daemon}" was lost while it prepared its nodes', now
                )
            case TimerExpired(purpose="start") if self.phase is Phase.PREPARING:
                return self._roll_back(self._late(), now)
            case TimerExpired(purpose="link") if self.phase is Phase.LINKING:
                return self._still_unlinked(now)
            case StopRequested():
                return self._roll_back("stopped before it had started", now)
            case _:
                return []

    def _go_on(self, now: float) -> list[Command]:
        """The next step of a start, if all that it needs is there."""
        if self.phase is Phase.LINKING:
            return self._release_all(now) if self.links.all_linked else []
        deaf = self.links.deaf()
        if deaf and not self.spec.allow_unlinked:
            return self._roll_back("; ".join(deaf), now)
        if not self.parts.all_prepared:
            return []
        if not self.links:
            return self._release_all(now)
        if not self.links.all_listen:
            return []
        self.phase = Phase.LINKING
        self._link_wait.begin(now)
        ends = [self.parts[machine] for machine in self.links.machines]
        look = ArmTimer(self._timer("link"), self._link_wait.next_look(now))
        return [*(self.parts.connect(part) for part in ends), look]

    def _still_unlinked(self, now: float) -> list[Command]:
        if self._link_wait.goes_on(self.links, now, allow_unlinked=self.spec.allow_unlinked):
            return [ArmTimer(self._timer("link"), self._link_wait.next_look(now))]
        if self.spec.allow_unlinked:
            self.warnings = (self.links.complaint(),)
            return self._release_all(now)
        return self._roll_back(unlinked_start(self.links), now)

    def _release_all(self, now: float) -> list[Command]:
        self.phase = Phase.RELEASING
        self._link_wait.end()
        at = now + self._context.settings.start_timeout
        return [
            CancelTimer(self._timer("link")),
            *(part.release() for part in self.parts.values()),
            ArmTimer(self._timer("start"), at),
        ]

    def _late(self) -> str:
        """Why a start that is not ready in time is not."""
        silent = [self.parts[machine] for machine in self.links.silent()]
        return late_start(self.parts.values(), silent, self._context.settings.start_timeout)

    def _roll_back(self, reason: str, now: float) -> list[Command]:
        self.phase = Phase.ROLLING_BACK
        self._link_wait.end()
        self.reason = reason
        self._force = True
        prepared = self.parts.left()
        message = StopPart(dataflow_id=self.id, force=True, reason="the start failed")
        commands: list[Command] = [
            *(CancelTimer(self._timer(purpose)) for purpose in ("start", "link")),
            Log("warning", f"dataflow {self.label}: start failed: {reason}"),
            *(SendToDaemon(part.daemon, message) for part in prepared),
        ]
        for part in prepared:
            if not self._context.membership.is_connected(part.daemon):
                self._end(part, None)  # it is told to kill its nodes when it comes back
        return [*commands, self._stop_deadline(now), *self._finish_if_all_ended()]

    # ------------------------------------------------------------------- live

    def _while_live(self, event: DataflowEvent, now: float) -> list[Command]:
        match event:
            case PartReported(daemon=daemon, report=report, registering=registering):
                return self._live_report(self.parts[daemon], report, registering, now)
            case PartGone(daemon=daemon, attempt=attempt, reason=reason):
                part = self.parts[daemon]
                if part.ended or attempt < part.attempt:
                    return []
                lost = Log("warning", f'dataflow {self.label} on daemon "{daemon}": {reason}')
                return [lost, *self._recover(part, now, reason)]
            case PartAbsent(daemon=daemon):
                part = self.parts[daemon]
                part.reported = True
                if part.ended:
                    return []
                if part.state is PartState.RUNNING:
                    # its daemon or machine went, not its nodes: this is no crash loop
                    self._context.backoff.clear(daemon, self.id)
                return self._recover(part, now, f'daemon "{daemon}" came back without its nodes')
            case TimerExpired(purpose="retry", daemon=daemon):
                part = self.parts[daemon]
                return self._recover(part, now) if part.state is PartState.MISSING else []
            case TimerExpired(purpose="start") if self.phase is Phase.RELEASING:
                self.phase = Phase.RUNNING  # released cannot be taken back: it runs, degraded
                return []
            case TimerExpired(purpose="recovery") if self.phase is Phase.RECOVERING:
                return self._end_recovery()
            case StopRequested(grace=grace, force=force):
                self._grace, self._force = grace, force
                return self._stop(now)
            case _:
                return []

    def _live_report(
        self, part: Part, report: PartReport, registering: bool, now: float
    ) -> list[Command]:
        part.reported = True
        part.only_virtual_left = report.only_virtual_left
        if part.ended:
            return [part.forget()] if report.phase == "ended" else [part.kill()]
        if report.attempt < part.attempt and report.phase == "ended":
            why = f'daemon "{part.daemon}" came back with an earlier start of its nodes'
            return [part.forget()] if not registering else self._recover(part, now, why)
        if report.attempt != part.attempt:
            part.attempt = report.attempt  # it lives: each node exactly once
            self.parts.mark(part)
        if report.stopped:  # not by us
            return self._stopped_there(part, report, now)
        match report.phase:
            case "ended":
                self._end(part, report.result)
                return [
                    part.forget(),
                    *self.parts.tell_peers_of_end(part),
                    *self._settle(now),
                ]
            case "prepared":
                self.parts.move(part, PartState.PREPARED)
                return [part.release()]
            case "running":
                if registering:
                    self._context.backoff.clear(part.daemon, self.id)
                self.parts.move(part, PartState.RUNNING)
                return [CancelTimer(self._timer("retry", part.daemon)), *self._settle(now)]
            case "preparing":
                self.parts.move(part, PartState.PREPARING)
                return []
            case "stopping":
                return []

    def _stopped_there(self, part: Part, report: PartReport, now: float) -> list[Command]:
        """Its daemon was told to end, which ends the dataflows that it runs."""
        ended = report.phase == "ended"
        if ended:
            self._end(part, report.result)
        stop = self._stop_since(stopped_with(part.daemon), now)
        return [part.forget(), *stop] if ended else stop

    def _recover(self, part: Part, now: float, why: str | None = None) -> list[Command]:
        """Spawn a part again, now or when the back-off has passed; never on another daemon.

        ``why``: None for the reason that was noted before.
        """
        part.recovers = why or part.recovers
        self.parts.mark(part)
        self.links.forget(part.daemon)
        part.only_virtual_left = False
        self.parts.move(part, PartState.MISSING)
        if not self._context.membership.is_connected(part.daemon):
            return []
        wait = self._context.backoff.wait(part.daemon, self.id, now)
        if wait > 0:
            retry = ArmTimer(self._timer("retry", part.daemon), now + wait)
            return [Log("info", part.waits_text(self.label, wait)), retry]
        self._context.backoff.attempted(part.daemon, self.id, now)
        part.attempt += 1
        part.recovered_at = now
        self.parts.move(part, PartState.PREPARING)
        return [Log("info", part.recovery_text(self.label)), self._prepare(part)]

    def _end_recovery(self) -> list[Command]:
        waiting = self.parts.left()
        if any(part.reported for part in waiting):
            self.phase = Phase.RUNNING
            return []
        self.phase = Phase.FAILED
        self._unreported = True
        limit = self._context.settings.recovery_timeout
        self.reason = (
            f"the coordinator was restarted and {names(waiting)} did not report within "
            f"{limit:g} s (it goes on when one of them comes back)"
        )
        return [Log("warning", f"dataflow {self.label} failed: {self.reason}")]

    def _settle(self, now: float) -> list[Command]:
        """The phase that follows once no part is on its way any more."""
        finished = self._finish_if_all_ended()
        if finished:
            return finished
        if (why := self._ends.why_now(self.parts.values())) is not None:
            return self._stop_since(why, now)
        if self.parts.all_settled and (
            self.phase is not Phase.RECOVERING
            or all(part.reported or part.ended for part in self.parts.values())
        ):
            self.phase = Phase.RUNNING
            return [CancelTimer(self._timer("start")), CancelTimer(self._timer("recovery"))]
        return []

    # --------------------------------------------------------------- stopping and ended

    def _stop_since(self, why: str, now: float) -> list[Command]:
        self._stopped_since = why
        return [Log("info", f"dataflow {self.label} is stopped: {why}"), *self._stop(now)]

    def _stop(self, now: float) -> list[Command]:
        self.phase = Phase.STOPPING
        commands: list[Command] = [
            CancelTimer(self._timer(purpose)) for purpose in ("start", "recovery")
        ]
        for part in self.parts.values():
            commands.append(CancelTimer(self._timer("retry", part.daemon)))
            if part.state is PartState.MISSING:
                self._end(part, None)
            elif not part.ended:
                commands.append(self._stop_part(part))
        return [*commands, self._stop_deadline(now), *self._finish_if_all_ended()]

    def _while_stopping(self, event: DataflowEvent, now: float) -> list[Command]:
        match event:
            case PartReported(daemon=daemon, report=PartReport(phase="ended", result=result)):
                part = self.parts[daemon]
                self._end(part, result)
                return [part.forget(), *self._finish_if_all_ended()]
            case PartReported(daemon=daemon, registering=True):
                return [self._stop_part(self.parts[daemon])]
            case PartGone(daemon=daemon, reason=reason, result=result):
                part = self.parts[daemon]
                if self.phase is Phase.STOPPING and result is None:
                    result = DataflowResult(dataflow_id=self.id, name=self.name, error=reason)
                self._end(part, result)
                return self._finish_if_all_ended()
            case PartAbsent(daemon=daemon):
                self._end(self.parts[daemon], None)
                return self._finish_if_all_ended()
            case DaemonLost(daemon=daemon) if self.phase is Phase.ROLLING_BACK:
                self._end(self.parts[daemon], None)
                return self._finish_if_all_ended()
            case StopRequested(grace=grace, force=force):
                self._grace = grace
                self._force = self._force or force
                left = self.parts.left()
                return [
                    *(self._stop_part(part) for part in left),
                    self._stop_deadline(now),
                ]
            case TimerExpired(purpose="stop"):
                left = self.parts.left()
                self.phase = Phase.FAILED
                self.reason = self.reason or f"the stop was not confirmed by {names(left)}"
                return []
            case _:
                return []

    def _after_end(self, event: DataflowEvent, now: float) -> list[Command]:
        if self._unreported and isinstance(event, PartReported | PartAbsent):
            return self._come_back(event, now)
        match event:
            case StopRequested():
                self._unreported = False  # from now on, what returns is killed
                return [SaveRecord(self._changes())]
            case PartReported(daemon=daemon, report=PartReport(phase="ended", result=result)):
                part = self.parts[daemon]
                self._end(part, result)
                return [part.forget()]
            case PartReported(daemon=daemon, registering=registering):
                return [self.parts[daemon].kill()] if registering else []
            case PartGone(daemon=daemon) | PartAbsent(daemon=daemon):
                self._end(self.parts[daemon], None)
                return []
            case _:
                return []

    def _come_back(self, event: PartReported | PartAbsent, now: float) -> list[Command]:
        """A daemon that was given up is there again, so the dataflow should run after all."""
        self._unreported = False
        self.phase = Phase.RECOVERING
        self.reason = None
        for part in self.parts.values():
            part.reported = False
        at = now + self._context.settings.recovery_timeout
        return [ArmTimer(self._timer("recovery"), at), *self._while_live(event, now)]

    def _note_end(self, now: float) -> None:
        self._ended_at = now + self._context.wall_offset if self.has_ended else None

    def _end(self, part: Part, result: DataflowResult | None) -> None:
        if result is not None and self.phase is Phase.ROLLING_BACK:
            result = taken_back(result)
        self.parts.end(part, result)

    def _finish_if_all_ended(self) -> list[Command]:
        if not self.parts.all_ended:
            return []
        ok = self.reason is None and all(
            part.result is None or part.result.ok for part in self.parts.values()
        )
        self.phase = Phase.FINISHED if ok else Phase.FAILED
        purposes = ("start", "link", "recovery", "stop")
        return [
            *(CancelTimer(self._timer(purpose)) for purpose in purposes),
            *(CancelTimer(self._timer("retry", daemon)) for daemon in self.parts),
        ]

    # ---------------------------------------------------------------------- views

    @property
    def label(self) -> str:
        return f'"{self.name}" ({self.id})' if self.name else self.id

    @property
    def waits_for(self) -> str | None:
        """What holds up its start, once that takes long."""
        return self._link_wait.waits_for

    @property
    def has_ended(self) -> bool:
        return self.phase.has_ended

    def ended_ago(self, now: float) -> float | None:
        """Seconds since its end; None while it lives."""
        if self._ended_at is None:
            return None
        return max(0.0, now + self._context.wall_offset - self._ended_at)

    @property
    def is_awaited(self) -> bool:
        """Failed for want of a report: it goes on when a daemon returns, unless stopped."""
        return self._unreported

    @property
    def may_come_back(self) -> bool:
        """Ended, but some daemon may still have nodes of it: it must not be forgotten."""
        return self.has_ended and any(not part.ended for part in self.parts.values())

    def status(self) -> tuple[DataflowStatus, str | None]:
        """The word that ``list`` shows, and why."""
        parts = list(self.parts.values())
        why = (self._why_failed(), self._stopped_since)
        return status_of(self.phase, why, parts, self.links, self._context.membership)

    def ended(self) -> EndedDataflow:
        """How it ended, over all daemons."""
        ok = self.phase is Phase.FINISHED
        reason = self._why_failed()
        return ended_dataflow(self.id, self.name, self.parts.values(), ok=ok, reason=reason)

    def _why_failed(self) -> str | None:
        """The reason, and what is still to come of it."""
        if self.reason is None or self._unreported or not self.may_come_back:
            return self.reason
        left = names(self.parts.left())
        return f"{self.reason}; what {left} still runs is stopped when it is heard of again"

    def record(self) -> DataflowRecord:
        """All there is to store."""
        return self._record(self.parts.values())

    def _changes(self) -> DataflowRecord:
        """What has to be stored anew: a fleet of a thousand parts is not written at each event."""
        return self._record(self.parts.marked())

    def _record(self, parts: Iterable[Part]) -> DataflowRecord:
        return DataflowRecord(
            dataflow_id=self.id,
            name=self.name,
            phase=self.phase,
            parts=tuple(part.record() for part in parts),
            number=self.number,
            reason=self.reason,
            unreported=self._unreported,
            grace=self._grace,
            force=self._force,
            stopped_since=self._stopped_since,
            ended_at=self._ended_at,
        )

    # -------------------------------------------------------------------- messages

    def _stop_part(self, part: Part) -> Command:
        reason = self._stopped_since or "stop requested"
        return part.stop(self._grace, force=self._force, reason=reason)

    def _prepare(self, part: Part) -> Command:
        return self.parts.prepare(part, self.spec, self._context.membership)

    def _hear_of_link(self, event: PartReported) -> list[Command]:
        """Note how a part is linked; its peers are told when it listens elsewhere than before."""
        part, link = self.parts[event.daemon], event.report.link
        if link is None or part.ended or event.report.attempt < part.attempt:
            return []
        news = self.links.note(part.daemon, link)
        given_up = self.has_ended and not self._unreported
        if given_up or self.phase in (Phase.PREPARING, Phase.ROLLING_BACK):
            return []
        quiet = self.phase in (Phase.LINKING, Phase.STOPPING)  # the news is not worth a line
        commands = [] if quiet else news.log(self.label)
        if news.moved:
            commands += self.parts.tell_peers_where(part)
        if news.moved or event.registering:  # it may have missed where they are
            commands.append(self.parts.connect(part))
        return commands

    def _stop_deadline(self, now: float) -> Command:
        grace = 0.0 if self._force else DEFAULT_GRACE if self._grace is None else self._grace
        at = now + grace * 1.5 + self._context.settings.stop_margin
        return ArmTimer(self._timer("stop"), at)

    def _timer(self, purpose: str, daemon: str = "") -> TimerKey:
        return TimerKey(purpose, self.id, daemon)
