"""Phases stopping and rolling back: wait until every part has ended; pure."""

from __future__ import annotations

from uuid import UUID, uuid5

from dora_config.protocol.daemon import StopPart
from dora_config.protocol.runner import DataflowResult
from dora_coordinator.dataflow import events
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.part import Part, names
from dora_coordinator.state.commands import ArmTimer, Command, Log, SendToDaemon
from dora_coordinator.state.records import PartState, Phase

DEFAULT_GRACE = 10.0
"""Seconds from STOP to SIGTERM when a stop gives none."""


def handle(data: DataflowData, event: events.PhaseEvent, now: float) -> list[Command]:
    match event:
        case events.PartReported(daemon=daemon, report=report):
            part = data.parts[daemon]
            if report.phase == "ended":
                data.end_part(part, report.result)
                return [part.forget(), *finish_if_all_ended(data)]
            return [stop_part(data, part)] if event.registering else []
        case events.PartGone(daemon=daemon, message=lost):
            result, missing = lost.result, data.parts[daemon].state is PartState.MISSING
            if data.phase is Phase.STOPPING and result is None and not missing:
                result = DataflowResult(dataflow_id=data.id, name=data.name, error=lost.reason)
            data.end_part(data.parts[daemon], result)
            return finish_if_all_ended(data)
        case events.PartAbsent(daemon=daemon):
            data.end_part(data.parts[daemon], None)
            return finish_if_all_ended(data)
        case events.DaemonLost(daemon=daemon):
            if data.phase is not Phase.ROLLING_BACK:
                return []
            data.end_part(data.parts[daemon], None)
            return finish_if_all_ended(data)
        case events.StopRequested(grace=grace, force=force):
            data.grace = grace
            data.force = data.force or force
            return [*(stop_part(data, part) for part in data.parts.left()), deadline(data, now)]
        case events.TimerExpired(purpose=purpose):
            if purpose == "stop":
                data.phase = Phase.FAILED
                left = names(data.parts.left())
                data.reason = data.reason or f"the stop was not confirmed by {left}"
            return []
        case events.StartAccepted():
            return []


def stop(data: DataflowData, now: float) -> list[Command]:
    """Begin to stop a running dataflow."""
    data.phase = Phase.STOPPING
    commands = data.cancel_timers("start", "recovery")
    for part in data.parts.left():  # also missing ones: their machines may still have them
        commands.append(stop_part(data, part))
    return [*commands, deadline(data, now), *finish_if_all_ended(data)]


def stop_because(data: DataflowData, reason: str, now: float) -> list[Command]:
    """Stop a running dataflow although no user requested it."""
    data.stopped_since = reason
    log = Log("info", f"dataflow {data.label} is stopped: {reason}")
    return [log, *stop(data, now)]


def roll_back(
    data: DataflowData, reason: str, now: float, *, repeat: bool = False
) -> list[Command]:
    """Give up a start and kill what was prepared.

    ``repeat``: a machine caused the failure, so a restart is tried again.
    """
    data.phase = Phase.ROLLING_BACK
    if repeat and data.replaces and data.restart_as is None:
        data.restart_as = str(uuid5(UUID(data.id), "again"))
    data.missing_links = None
    data.reason = reason
    data.force = True
    prepared = data.parts.left()
    message = StopPart(dataflow_id=data.id, force=True, reason="the start failed")
    commands: list[Command] = [
        *data.cancel_timers("start", "link"),
        Log("warning", f"dataflow {data.label}: start failed: {reason}"),
        *(SendToDaemon(part.daemon, message) for part in prepared),
    ]
    for part in prepared:
        if not data.is_connected(part):
            data.end_part(part, None)  # its nodes are killed when the daemon is back
    return [*commands, deadline(data, now), *finish_if_all_ended(data)]


def deadline(data: DataflowData, now: float) -> Command:
    """Arm the timer after which an unconfirmed stop is given up."""
    grace = 0.0 if data.force else DEFAULT_GRACE if data.grace is None else data.grace
    return ArmTimer(data.timer("stop"), now + grace * 1.5 + data.settings.stop_margin)


def finish_if_all_ended(data: DataflowData) -> list[Command]:
    if not data.parts.all_ended:
        return []
    results = [part.result for part in data.parts.values() if part.result is not None]
    ok = data.reason is None and all(result.ok for result in results)
    data.phase = Phase.FINISHED if ok else Phase.FAILED
    return data.cancel_timers("start", "link", "recovery", "stop")


def stop_part(data: DataflowData, part: Part) -> Command:
    """Return the message that stops a part."""
    reason = data.stopped_since or "stop requested"
    return part.stop(data.grace, force=data.force, reason=reason)
