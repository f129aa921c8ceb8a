"""Commands of the runner's state machine to its service, and lists of them; pure."""

from __future__ import annotations

from typing import Literal

from dora_config.protocol.runner_events import (
    DataflowResult,
    LogLevel,
    NodeEnded,
    NodeFailed,
    NodeRestarting,
    NodeResult,
    RunnerEvent,
)
from dora_daemon.runner.machine.events import TimerName
from dora_node_api.frozen import Frozen

Signal = Literal["SIGTERM", "SIGKILL"]


class SpawnNode(Frozen):
    """Start a process; its outcome is NodeSpawned or SpawnFailed."""

    node: str
    incarnation: int


class SignalNode(Frozen):
    """Signal the node's whole process group."""

    node: str
    signal: Signal


class StageReplacement(Frozen):
    """Start the replacement of a node's program beside its running process."""

    node: str
    incarnation: int


class PromoteReplacement(Frozen):
    """Make the staged process the node's process: the former one has ended."""

    node: str
    incarnation: int


class Admit(Frozen):
    """Reply to a Hello with Welcome and the node's routes."""

    node: str
    incarnation: int
    restarts: int


class Refuse(Frozen):
    """Reply to a Hello, or to a node at the start barrier, with an error."""

    node: str
    message: str


class SendGo(Frozen):
    """Release nodes from the start barrier."""

    nodes: tuple[str, ...]


class SendStop(Frozen):
    """Send STOP to a node."""

    node: str


class ArmTimer(Frozen):
    """Deliver TimerFired at ``at``; replaces an armed timer of the same name."""

    node: str | None
    timer: TimerName
    at: float


class CancelTimer(Frozen):
    """Cancel a timer if it is armed."""

    node: str | None
    timer: TimerName


class AnnounceClosed(Frozen):
    """Announce to consumers that these outputs (``None``: all) have ended."""

    node: str
    outputs: tuple[str, ...] | None = None


class AnnounceRestarted(Frozen):
    """Announce to consumers that the node restarts."""

    node: str


class AnnounceFailed(Frozen):
    """Announce to consumers that the node failed permanently."""

    node: str
    error: str


class RepeatClosed(Frozen):
    """Announce to a new process of a node that these of its inputs have ended before."""

    node: str
    inputs: tuple[str, ...]


class DropInputs(Frozen):
    """Remove the queues of a node that will not read again."""

    node: str


class ReportEvent(Frozen):
    """Publish an event to the followers of this runner."""

    event: RunnerEvent


class EmitLog(Frozen):
    """Log a line of the runner; ``node`` is the node it is about."""

    level: LogLevel
    message: str
    node: str | None = None


class SpawnLink(Frozen):
    """Start the link process; its outcome is LinkSpawned or LinkExited."""

    incarnation: int


class AdmitLink(Frozen):
    """Reply to the link's Hello with Welcome and its routes."""

    incarnation: int


class FinishLink(Frozen):
    """Make the link deliver queued messages for at most ``seconds`` and end."""

    seconds: float


class SignalLink(Frozen):
    """Signal the link's whole process group."""

    signal: Signal


class FinishDataflow(Frozen):
    """Store the result; every node has ended. The report follows."""

    result: DataflowResult


Announcement = AnnounceClosed | AnnounceRestarted | AnnounceFailed | RepeatClosed
LinkCommand = SpawnLink | AdmitLink | FinishLink | SignalLink

Command = (
    SpawnNode
    | SignalNode
    | StageReplacement
    | PromoteReplacement
    | Admit
    | Refuse
    | SendGo
    | SendStop
    | ArmTimer
    | CancelTimer
    | Announcement
    | DropInputs
    | ReportEvent
    | EmitLog
    | LinkCommand
    | FinishDataflow
)

_TIMERS: tuple[TimerName, ...] = ("startup", "finish", "terminate", "kill", "backoff")


def cancel_timers(node: str) -> list[Command]:
    """Return the commands that cancel every timer of a node."""
    return [CancelTimer(node, name) for name in _TIMERS]


def announce_restart(report: NodeRestarting) -> list[Command]:
    """Return the commands for a process that another one of its node follows."""
    return [*cancel_timers(report.node), AnnounceRestarted(report.node), ReportEvent(report)]


def announce_detached(node: str) -> list[Command]:
    """Return the commands for a dynamic node whose process has left."""
    return [
        *cancel_timers(node),
        DropInputs(node),
        AnnounceClosed(node),
        ReportEvent(NodeEnded(node=node, dynamic=True)),
    ]


def announce_end(result: NodeResult) -> list[Command]:
    """Return the commands for a node that has ended and does not restart."""
    node = result.node
    commands: list[Command] = [*cancel_timers(node), DropInputs(node)]
    if result.outcome == "success":
        return [*commands, AnnounceClosed(node), ReportEvent(NodeEnded(node=node))]
    return [
        *commands,
        AnnounceFailed(node, result.message),
        AnnounceClosed(node),
        ReportEvent(NodeFailed(result=result)),
    ]
