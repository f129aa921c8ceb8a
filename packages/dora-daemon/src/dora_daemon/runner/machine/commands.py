"""Commands of the runner's state machine to its service, and lists of them; pure."""

from __future__ import annotations

from typing import Literal

from dora_config.dataflow.sources import LogLevel
from dora_config.protocol import runner_events as reports
from dora_daemon.runner.machine.events import TimerName
from dora_node_api.frozen import FrozenRecord

Signal = Literal["SIGTERM", "SIGKILL"]


class SpawnNode(FrozenRecord):
    """Start the process of a node; the outcome is NodeSpawned or SpawnFailed."""

    node: str
    incarnation: int


class SignalNode(FrozenRecord):
    """Signal the node's whole process group."""

    node: str
    signal: Signal


class StageReplacement(FrozenRecord):
    """Start the replacement of a node's program beside its running process."""

    node: str
    incarnation: int


class PromoteReplacement(FrozenRecord):
    """Make the staged process the node's process, after the end of the former one."""

    node: str
    incarnation: int


class Admit(FrozenRecord):
    """Reply to a Hello with Welcome and the node's routes."""

    node: str
    incarnation: int
    restarts: int


class Refuse(FrozenRecord):
    """Reply to a Hello, or to a node at the start barrier, with an error."""

    node: str
    message: str
    cancelled: bool = False
    """Whether the process is not the cause: the dataflow does not start, or is being stopped."""


class SendGo(FrozenRecord):
    """Release nodes from the start barrier."""

    nodes: tuple[str, ...]


class SendStop(FrozenRecord):
    """Send STOP to a node."""

    node: str
    restarts: bool = False
    """Whether another process of the node follows."""


class ArmTimer(FrozenRecord):
    """Emit TimerFired at the time ``at``; replace an armed timer of the same name."""

    node: str | None
    timer: TimerName
    at: float


class CancelTimer(FrozenRecord):
    """Cancel a timer if it is armed."""

    node: str | None
    timer: TimerName


class AnnounceClosed(FrozenRecord):
    """Announce to consumers that these outputs (``None``: all) have ended."""

    node: str
    outputs: tuple[str, ...] | None = None


class AnnounceRestarted(FrozenRecord):
    """Announce to consumers that the node restarts."""

    node: str


class AnnounceFailed(FrozenRecord):
    """Announce to consumers that the node failed permanently."""

    node: str
    error: str


class RepeatClosed(FrozenRecord):
    """Announce to a new process of a node which of its inputs have already ended."""

    node: str
    inputs: tuple[str, ...]


class DropInputs(FrozenRecord):
    """Remove the queues of a node that will not read again."""

    node: str


class ReportEvent(FrozenRecord):
    """Report an event to the connected daemon, or to `dora run`."""

    event: reports.RunnerEvent


class EmitLog(FrozenRecord):
    """Log a line of the runner; ``node`` is its subject."""

    level: LogLevel
    message: str
    node: str | None = None


class SpawnLink(FrozenRecord):
    """Start the link process; the outcome is LinkSpawned or LinkExited."""

    incarnation: int


class AdmitLink(FrozenRecord):
    """Reply to the link's Hello with Welcome and its routes."""

    incarnation: int


class FinishLink(FrozenRecord):
    """Make the link deliver queued messages for at most ``seconds`` and end."""

    seconds: float


class SignalLink(FrozenRecord):
    """Signal the link's whole process group."""

    signal: Signal


class FinishDataflow(FrozenRecord):
    """Store the result after the end of every node; a ReportEvent with it follows."""

    result: reports.DataflowResult


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


def announce_restart(report: reports.NodeRestarting) -> list[Command]:
    """Return the commands after the end of a process whose node restarts."""
    return [*cancel_timers(report.node), AnnounceRestarted(report.node), ReportEvent(report)]


def announce_detached(node: str) -> list[Command]:
    """Return the commands after a dynamic node has ended or closed its connection."""
    return [
        *cancel_timers(node),
        DropInputs(node),
        AnnounceClosed(node),
        ReportEvent(reports.NodeEnded(node=node, dynamic=True)),
    ]


def announce_end(result: reports.NodeResult) -> list[Command]:
    """Return the commands after the end of a node that does not restart."""
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
