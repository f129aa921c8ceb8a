"""The repair of each kind of difference; pure."""

from __future__ import annotations

from dora_coordinator.dataflow import live, starting
from dora_coordinator.dataflow.data import DataflowData
from dora_coordinator.dataflow.differences import Kind
from dora_coordinator.dataflow.stopping import stop_part
from dora_coordinator.state.commands import Command
from dora_coordinator.state.records import Phase


def repair(data: DataflowData, daemon: str, kind: Kind, now: float) -> list[Command]:
    """Return the commands that repair a difference of one part."""
    part = data.parts.get(daemon)
    if part is None:
        return []
    match kind:
        case "missing":
            return live.recover(data, part, now)
        case "unprepared":
            return [data.prepare(part)]
        case "unreleased":
            starts = data.phase in (Phase.PREPARING, Phase.LINKING)
            return starting.go_on(data, now) if starts else [part.release()]
        case "unstopped":
            return [part.kill() if data.has_ended or part.ended else stop_part(data, part)]
        case "outdated":
            return data.relink(part)
        case "unconnected":
            return [data.parts.connect(part, data.context.membership)]
        case "unreported" | "unnoticed" | "unknown":
            return []  # `registry` passes them on as events
        case "away" | "unconfirmed" | "starting" | "unlinked" | "node":
            return []  # they are only reported
