"""Commands that announce the end of a process to its readers and report it; pure."""

from __future__ import annotations

from dora_config.protocol import runner_events as reports
from dora_daemon.runner.machine.commands import (
    AnnounceClosed,
    AnnounceFailed,
    AnnounceRestarted,
    CancelTimer,
    Command,
    DropInputs,
    ReportEvent,
)

_TIMERS = ("startup", "finish", "terminate", "kill", "backoff")


def cancel_timers(node: str) -> list[Command]:
    """Return the commands that cancel every timer of a node."""
    return [CancelTimer(node, name) for name in _TIMERS]


def announce_restart(report: reports.NodeRestarting) -> list[Command]:
    """Return the commands for a process that another one of its node follows."""
    return [*cancel_timers(report.node), AnnounceRestarted(report.node), ReportEvent(report)]


def announce_detached(node: str) -> list[Command]:
    """Return the commands for a dynamic node whose process has left."""
    return [
        *cancel_timers(node),
        DropInputs(node),
        AnnounceClosed(node),
        ReportEvent(reports.NodeEnded(node=node, dynamic=True)),
    ]


def announce_end(result: reports.NodeResult) -> list[Command]:
    """Return the commands for a node that has ended for good."""
    node = result.node
    commands: list[Command] = [*cancel_timers(node), DropInputs(node)]
    if result.outcome == "success":
        return [*commands, AnnounceClosed(node), ReportEvent(reports.NodeEnded(node=node))]
    return [
        *commands,
        AnnounceFailed(node, result.message),
        AnnounceClosed(node),
        ReportEvent(reports.NodeFailed(result=result)),
    ]
