"""What the agent's state may ask its service to do; imperative, frozen, free of I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dora_config.protocol.builds import BuildEventsAck, BuildPart, CancelBuild
from dora_config.protocol.calls import RunnerCall
from dora_config.protocol.daemon import DaemonMessage, StreamLogs
from dora_config.protocol.runner import RunnerRequest
from dora_config.protocol.topics import EndTopics, MoreTopics, StreamTopics
from dora_daemon.agent.records import PartRecord


@dataclass(frozen=True, slots=True)
class SavePart:
    """On disk before any later command is carried out."""

    record: PartRecord


@dataclass(frozen=True, slots=True)
class DropPart:
    dataflow_id: str


@dataclass(frozen=True, slots=True)
class TellCoordinator:
    """Dropped while there is no connection: registering says it all again."""

    message: DaemonMessage


@dataclass(frozen=True, slots=True)
class StartRunner:
    record: PartRecord


@dataclass(frozen=True, slots=True)
class AskRunner:
    dataflow_id: str
    request: RunnerRequest


@dataclass(frozen=True, slots=True)
class KillRunner:
    """Followed by RunnerGone once nothing of it is left."""

    dataflow_id: str


@dataclass(frozen=True, slots=True)
class OpenLogs:
    record: PartRecord
    request: StreamLogs


@dataclass(frozen=True, slots=True)
class ReadOn:
    stream: int


@dataclass(frozen=True, slots=True)
class CloseLogs:
    stream: int


@dataclass(frozen=True, slots=True)
class OpenWatch:
    record: PartRecord
    request: StreamTopics


@dataclass(frozen=True, slots=True)
class MindWatch:
    message: MoreTopics | EndTopics


@dataclass(frozen=True, slots=True)
class MindBuild:
    message: BuildPart | CancelBuild | BuildEventsAck


@dataclass(frozen=True, slots=True)
class CallRunner:
    """Ask a runner for the coordinator, which is told the reply."""

    message: RunnerCall


@dataclass(frozen=True, slots=True)
class Log:
    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class EndDaemon:
    """The last command; what was told before is flushed first."""


Command = (
    SavePart
    | DropPart
    | TellCoordinator
    | StartRunner
    | AskRunner
    | KillRunner
    | OpenLogs
    | ReadOn
    | CloseLogs
    | OpenWatch
    | MindWatch
    | MindBuild
    | CallRunner
    | Log
    | EndDaemon
)
