"""What the runner's state machine asks its service to do; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dora_config.protocol.runner import DataflowResult, LogLevel, RunnerEvent

Signal = Literal["SIGTERM", "SIGKILL"]


@dataclass(frozen=True, slots=True)
class SpawnNode:
    """Start a process; answered by NodeSpawned or SpawnFailed."""

    node: str
    incarnation: int
    restarts: int


@dataclass(frozen=True, slots=True)
class SignalNode:
    """To the node's whole process group."""

    node: str
    signal: Signal


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The process that waits to replace the node's former one is the node's now."""

    node: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Admit:
    """Answer a Hello with Welcome and the node's routes."""

    node: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a Hello, or end the wait at the start barrier, with a sentence."""

    node: str
    message: str


@dataclass(frozen=True, slots=True)
class SendGo:
    """The nodes may run: their constructors return and their timers count."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SendStop:
    node: str
    reason: str = "MANUAL"


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """TimerFired at ``at``; an armed timer of the same name is moved."""

    node: str | None
    timer: str
    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    node: str | None
    timer: str


@dataclass(frozen=True, slots=True)
class AnnounceClosed:
    """Tell the consumers of these outputs (``None``: all) that nothing more comes."""

    node: str
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AnnounceRestarted:
    """Tell consumers that a new process takes the node's place."""

    node: str


@dataclass(frozen=True, slots=True)
class AnnounceFailed:
    """Tell consumers that the node failed for good."""

    node: str
    error: str


@dataclass(frozen=True, slots=True)
class AnnounceClosedAgain:
    """Tell a new process of a node that these of its inputs ended before it came."""

    node: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropInputs:
    """The node reads no more: producers are freed of its queues."""

    node: str


@dataclass(frozen=True, slots=True)
class Report:
    """Hand an event to whoever follows this runner."""

    event: RunnerEvent


@dataclass(frozen=True, slots=True)
class Say:
    """A log line of the runner itself; ``node`` is whom it concerns."""

    level: LogLevel
    message: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """Every node has ended."""

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
    | Finish
)
