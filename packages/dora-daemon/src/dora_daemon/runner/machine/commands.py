"""What the runner's state machine asks its service to do; pure."""

from __future__ import annotations

from typing import Literal

from dora_config.protocol.runner_events import DataflowResult, LogLevel, RunnerEvent
from dora_node_api.frozen import Frozen

Signal = Literal["SIGTERM", "SIGKILL"]


class SpawnNode(Frozen):
    """Start a process; answered by NodeSpawned or SpawnFailed."""

    node: str
    incarnation: int
    restarts: int


class SignalNode(Frozen):
    """To the node's whole process group."""

    node: str
    signal: Signal


class TakeOver(Frozen):
    """The process that waits to replace the node's former one is the node's now."""

    node: str
    incarnation: int


class Admit(Frozen):
    """Answer a Hello with Welcome and the node's routes."""

    node: str
    incarnation: int


class Refuse(Frozen):
    """Answer a Hello, or end the wait at the start barrier, with a sentence."""

    node: str
    message: str


class SendGo(Frozen):
    """The nodes may run: their constructors return and their timers count."""

    nodes: tuple[str, ...]


class SendStop(Frozen):
    node: str
    reason: str = "MANUAL"


class ArmTimer(Frozen):
    """TimerFired at ``at``; an armed timer of the same name is moved."""

    node: str | None
    timer: str
    at: float


class CancelTimer(Frozen):
    node: str | None
    timer: str


class AnnounceClosed(Frozen):
    """Tell the consumers of these outputs (``None``: all) that nothing more comes."""

    node: str
    outputs: tuple[str, ...] | None = None


class AnnounceRestarted(Frozen):
    """Tell consumers that a new process takes the node's place."""

    node: str


class AnnounceFailed(Frozen):
    """Tell consumers that the node failed for good."""

    node: str
    error: str


class AnnounceClosedAgain(Frozen):
    """Tell a new process of a node that these of its inputs ended before it came."""

    node: str
    inputs: tuple[str, ...]


class DropInputs(Frozen):
    """The node reads no more: producers are freed of its queues."""

    node: str


class Report(Frozen):
    """Hand an event to whoever follows this runner."""

    event: RunnerEvent


class Say(Frozen):
    """A log line of the runner itself; ``node`` is whom it concerns."""

    level: LogLevel
    message: str
    node: str | None = None


class SpawnLink(Frozen):
    """Start the link process; answered by LinkSpawned or LinkExited."""

    incarnation: int


class AdmitLink(Frozen):
    """Answer the link's Hello with Welcome and its routes."""

    incarnation: int


class FinishLink(Frozen):
    """Have the link pass on what waits, for so many seconds at most, and end."""

    seconds: float


class SignalLink(Frozen):
    """To the link's whole process group."""

    signal: Signal


class Finish(Frozen):
    """Every node has ended: keep the result, before anybody is told."""

    result: DataflowResult


Command = (
    SpawnNode
    | SignalNode
    | TakeOver
    | Admit
    | Refuse
    | SendGo
    | SendStop
    | ArmTimer
    | CancelTimer
    | AnnounceClosed
    | AnnounceRestarted
    | AnnounceFailed
    | AnnounceClosedAgain
    | DropInputs
    | Report
    | Say
    | SpawnLink
    | AdmitLink
    | FinishLink
    | SignalLink
    | Finish
)
