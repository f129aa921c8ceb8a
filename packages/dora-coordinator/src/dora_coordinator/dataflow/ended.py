"""Phases finished and failed: daemons that return are cleaned up; pure."""

from __future__ import annotations

from typing import assert_never

from dora_coordinator.dataflow import live
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.events import (
    DaemonLost,
    PartAbsent,
    PartGone,
    PartReported,
    PhaseEvent,
    StartAccepted,
    StopRequested,
    TimerExpired,
)
from dora_coordinator.state.commands import ArmTimer, Command, SaveRecord
from dora_coordinator.state.records import Phase


def handle(data: DataflowData, event: PhaseEvent, now: float) -> list[Command]:
    if data.unreported and isinstance(event, PartReported | PartAbsent):
        return _resume(data, event, now)
    match event:
        case StopRequested():
            data.unreported = False  # a daemon that returns kills its part
            return [SaveRecord(data.changed_record())]
        case PartReported(daemon=daemon, report=report):
            part = data.parts[daemon]
            if report.phase == "ended":
                data.end_part(part, report.result)
                return [part.forget()]
            return [part.kill()] if event.registering else []
        case PartGone(daemon=daemon) | PartAbsent(daemon=daemon):
            data.end_part(data.parts[daemon], None)
            return []
        case StartAccepted() | DaemonLost() | TimerExpired():
            return []
        case _ as unreachable:
            assert_never(unreachable)


def _resume(data: DataflowData, event: PartReported | PartAbsent, now: float) -> list[Command]:
    """A daemon that was given up has registered: recover the dataflow."""
    data.unreported = False
    data.phase = Phase.RECOVERING
    data.reason = None
    for part in data.parts.values():
        part.reported = False
    recovery = ArmTimer(data.timer("recovery"), now + data.settings.recovery_timeout)
    return [recovery, *live.handle(data, event, now)]
