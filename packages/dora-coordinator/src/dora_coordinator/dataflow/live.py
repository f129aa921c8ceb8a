"""Phases releasing, running and recovering: a lost part is spawned again on its daemon; pure."""

from __future__ import annotations

from dora_config.protocol.daemon import PartReport
from dora_config.protocol.runner import DataflowResult
from dora_coordinator.dataflow import events
from dora_coordinator.dataflow.completion import last_line, stopped_with
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.dataflow.rewiring import drop_part
from dora_coordinator.dataflow.stopping import finish_if_all_ended, stop, stop_because
from dora_coordinator.state.commands import Command, Log
from dora_coordinator.state.records import PartState, Phase


def handle(data: DataflowData, event: events.PhaseEvent, now: float) -> list[Command]:
    """Handle an event of a dataflow that is released, runs or recovers."""
    match event:
        case events.PartReported():
            return _part_reported(data, event, now)
        case events.PartGone():
            return _part_gone(data, event, now)
        case events.PartAbsent(daemon=daemon, rebooted=rebooted):
            return _part_absent(data, data.parts[daemon], rebooted, now)
        case events.StopRequested(grace=grace, force=force):
            data.grace, data.force = grace, force
            return stop(data, now)
        case events.TimerExpired():
            return _timer_expired(data, event)
        case events.StartAccepted() | events.DaemonLost():
            return []


def _timer_expired(data: DataflowData, event: events.TimerExpired) -> list[Command]:
    if event.purpose == "start" and data.phase is Phase.RELEASING:
        data.phase = Phase.RUNNING  # a release cannot be undone: it runs, degraded
    if event.purpose == "recovery" and data.phase is Phase.RECOVERING:
        return _end_recovery(data)
    return []


def _part_reported(data: DataflowData, event: events.PartReported, now: float) -> list[Command]:
    part, report = data.parts[event.daemon], event.report
    part.reported = True
    part.only_virtual_left = report.only_virtual_left
    part.problem = None if report.phase == "lost" else report.problem
    if part.ended:
        return [part.forget()] if report.phase == "ended" else [part.kill()]
    if report.attempt < part.attempt and report.phase == "ended":
        if not event.registering:
            return [part.forget()]
        reason = f'daemon "{part.daemon}" came back with an earlier start of its nodes'
        return _lose(data, part, now, reason)
    if report.attempt < part.attempt and not event.registering:
        return []  # sent before the machine received that it is to start the nodes again
    if report.attempt != part.attempt:
        part.attempt = report.attempt  # its nodes run; another start would run them twice
        data.parts.mark(part)
    if report.stopped:
        reason = stopped_with(part.daemon)
        if event.end_stored:
            reason = f'it had been stopped on "{part.daemon}" before this coordinator took over'
        return _stopped_by_daemon(data, part, report, reason, now)
    match report.phase:
        case "ended":
            return [part.forget(), *_end(data, part, report.result, now)]
        case "prepared":
            data.parts.move(part, PartState.PREPARED)
            return [part.release()]
        case "running":
            if event.registering:
                part.retry.reset()
            data.parts.move(part, PartState.RUNNING)
            part.fresh = part.revived = False
            return _settle(data, now)
        case "preparing":
            data.parts.move(part, PartState.PREPARING)
            return []
        case "lost" if report.revision != part.revision:
            return []  # its nodes are described first
        case "lost":
            return _part_absent(data, part, event.rebooted, now)
        case "stopping":
            return []


def _part_gone(data: DataflowData, event: events.PartGone, now: float) -> list[Command]:
    """Spawn the part again, or drop it if it was added and did not start."""
    part, lost = data.parts[event.daemon], event.message
    reason, node = lost.reason, lost.node
    if part.ended or lost.attempt < part.attempt:
        return []
    if part.fresh:
        cause = reason if node is None else f'node "{node}" {reason}'
        return drop_part(data, part, cause + last_line(lost.result, node))
    log = Log("warning", f'dataflow {data.label} on daemon "{part.daemon}": {reason}')
    if part.revived:
        cause = reason if node is None else f'node "{node}" {reason}'
        data.not_added[part.daemon] = cause + last_line(lost.result, node)
        part.revived = False
        error = DataflowResult(dataflow_id=data.id, name=data.name, error=reason)
        return [log, part.forget(), *_end(data, part, lost.result or error, now)]
    return [log, *_lose(data, part, now, reason)]


def _part_absent(data: DataflowData, part: Part, rebooted: bool, now: float) -> list[Command]:
    part.reported = True
    if part.ended or part.claimed or part.state is PartState.MISSING:
        return []
    if part.state is PartState.RUNNING:
        # not a crash loop: the daemon or machine was lost, and its nodes with it
        part.retry.reset()
    reason = f'daemon "{part.daemon}" came back without its nodes'
    if rebooted:
        reason = f'machine "{part.daemon}" was rebooted'
    return _lose(data, part, now, reason)


def _stopped_by_daemon(
    data: DataflowData, part: Part, report: PartReport, reason: str, now: float
) -> list[Command]:
    """Stop the dataflow on all machines, because a part of it was stopped."""
    ended = report.phase == "ended"
    if ended:
        data.end_part(part, report.result)
    commands = stop_because(data, reason, now)
    return [part.forget(), *commands] if ended else commands


def _lose(data: DataflowData, part: Part, now: float, reason: str) -> list[Command]:
    """Mark a part without processes as missing; the comparison repairs it."""
    if not part.nodes:  # all were removed
        return _end(data, part, None, now)
    part.recovery_reason = reason
    data.parts.mark(part)
    data.links.runner_lost(part.daemon)
    part.only_virtual_left = False
    data.parts.move(part, PartState.MISSING)
    wait = part.retry.wait(now)
    if wait == 0 or not data.is_connected(part):
        return []
    return [Log("info", part.recovery_waits_text(data.label, wait))]


def recover(data: DataflowData, part: Part, now: float) -> list[Command]:
    """Spawn a missing part again on the same daemon."""
    if part.state is not PartState.MISSING or not data.is_connected(part):
        return []
    part.attempt += 1
    part.recovered_at = now
    data.parts.mark(part)
    data.parts.move(part, PartState.PREPARING)
    return [Log("info", part.recovery_text(data.label)), data.prepare(part)]


def _end(
    data: DataflowData, part: Part, result: DataflowResult | None, now: float
) -> list[Command]:
    """End a part permanently."""
    data.end_part(part, result)
    return [*data.parts.send_end_to_peers(part), *_settle(data, now)]


def _end_recovery(data: DataflowData) -> list[Command]:
    """Continue without the parts that were not reported in time; fail if none was reported."""
    left = data.parts.left()
    if any(part.reported for part in left):
        data.phase = Phase.RUNNING
        return []
    data.phase = Phase.FAILED
    data.unreported = True
    limit = data.settings.recovery_timeout
    data.reason = (
        f"the coordinator was restarted and {names(left)} did not report within "
        f"{limit:g} s (it resumes when one of them comes back)"
    )
    return [Log("warning", f"dataflow {data.label} failed: {data.reason}")]


def _settle(data: DataflowData, now: float) -> list[Command]:
    """Change the phase once every part is settled."""
    finished = finish_if_all_ended(data)
    if finished:
        return finished
    if (reason := data.completion.stop_reason(data.parts.values())) is not None:
        return stop_because(data, reason, now)
    if data.parts.all_settled and (
        data.phase is not Phase.RECOVERING
        or all(part.reported or part.ended for part in data.parts.values())
    ):
        data.phase = Phase.RUNNING
        return data.cancel_timers("start", "recovery")
    return []
