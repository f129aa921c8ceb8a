"""What can happen to a coordinator; past tense, frozen, free of I/O."""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.protocol.control import ControlRequest
from dora_config.protocol.daemon import DaemonMessage, Register


@dataclass(frozen=True, slots=True)
class DaemonRegistered:
    """A daemon's connection showed who it is; ``address`` is where it came from."""

    connection: int
    register: Register
    address: str


@dataclass(frozen=True, slots=True)
class DaemonMessageReceived:
    connection: int
    message: DaemonMessage
    clock_offset: float | None = None
    """Of a heartbeat: the time in it less the coordinator's when it came, seconds."""


@dataclass(frozen=True, slots=True)
class DaemonDisconnected:
    connection: int


@dataclass(frozen=True, slots=True)
class ClientRequested:
    """``fresh_id`` is an unused UUID, for requests that make a dataflow."""

    client: int
    number: int
    request: ControlRequest
    fresh_id: str


@dataclass(frozen=True, slots=True)
class ClientCancelled:
    client: int
    number: int


@dataclass(frozen=True, slots=True)
class TopicChunkTaken:
    """News of outputs were shown; what has come since may be sent."""

    client: int
    number: int
    stream: int


@dataclass(frozen=True, slots=True)
class LogLinesSent:
    """Log lines of a stream have been written to their client's socket."""

    stream: int


@dataclass(frozen=True, slots=True)
class BuildProgressSent:
    """News of a build have been written to their client's socket."""

    build_id: str
    daemon: str


@dataclass(frozen=True, slots=True)
class ClientDisconnected:
    client: int


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time of an ArmTimer command has come."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class TimerKey:
    """Which timer: what it is for, and of what."""

    purpose: str
    subject: str = ""
    daemon: str = ""


Event = (
    DaemonRegistered
    | DaemonMessageReceived
    | DaemonDisconnected
    | ClientRequested
    | ClientCancelled
    | ClientDisconnected
    | TopicChunkTaken
    | LogLinesSent
    | BuildProgressSent
    | TimerFired
)
