"""Phases finished and failed: daemons that return are cleaned up; pure."""

from __future__ import annotations

from dora_coordinator.dataflow import events, live
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.state.commands import ArmTimer, Command, SaveRecord
from dora_coordinator.state.records import Phase


def handle(data: DataflowData, event: events.PhaseEvent, now: float) -> list[Command]:
    if data.unreported and isinstance(event, events.PartReported | events.PartAbsent):
        return _resume(data, event, now)
    match event:
        case events.StopRequested():
            data.unreported = False  # a daemon that returns kills its part
            return [SaveRecord(data.changed_record())]
        case events.PartReported(daemon=daemon, report=report):
            part = data.parts[daemon]
            if report.phase == "ended":
                data.end_part(part, report.result)
                return [part.forget()]
            return [part.kill()] if event.registering else []
        case events.PartGone(daemon=daemon) | events.PartAbsent(daemon=daemon):
            data.end_part(data.parts[daemon], None)
            return []
        case events.StartAccepted() | events.DaemonLost() | events.TimerExpired():
            return []


def _resume(
    data: DataflowData, event: events.PartReported | events.PartAbsent, now: float
) -> list[Command]:
    """A daemon that was given up has registered: recover the dataflow."""
    data.unreported = False
    data.phase = Phase.RECOVERING
    data.reason = None
    for part in data.parts.values():
        part.reported = False
    recovery = ArmTimer(data.timer("recovery"), now + data.settings.recovery_timeout)
    return [recovery, *live.handle(data, event, now)]
