"""Commands of the agent's state machine to its service; frozen, free of I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dora_config.protocol.daemon import DaemonMessage
from dora_config.protocol.runner import RunnerRequest
from dora_daemon.agent.records import PartRecord


@dataclass(frozen=True, slots=True)
class SavePart:
    """Write the record to disk before any later command is executed."""

    record: PartRecord


@dataclass(frozen=True, slots=True)
class DropPart:
    dataflow_id: str


@dataclass(frozen=True, slots=True)
class SendToCoordinator:
    """Without a connection the message is dropped: a registration contains the same facts."""

    message: DaemonMessage


@dataclass(frozen=True, slots=True)
class Connect:
    """Connect to the coordinator: the state of all adopted runners is known."""


@dataclass(frozen=True, slots=True)
class StartRunner:
    record: PartRecord


@dataclass(frozen=True, slots=True)
class StartLater:
    """Post ``PartDue`` after some seconds."""

    dataflow_id: str
    starts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class AdoptRunner:
    """Connect to a runner that an earlier daemon process started."""

    record: PartRecord


@dataclass(frozen=True, slots=True)
class SendToRunner:
    dataflow_id: str
    request: RunnerRequest


@dataclass(frozen=True, slots=True)
class SetRunnerLinks:
    """Send the links of a part to its runner."""

    record: PartRecord


@dataclass(frozen=True, slots=True)
class ReadNodes:
    """Request the nodes of a runner; ``NodesRead`` follows."""

    dataflow_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class EndRunner:
    """Stop the nodes of a runner that takes no requests, with SIGTERM; ``RunnerEnded`` follows."""

    dataflow_id: str


@dataclass(frozen=True, slots=True)
class KillRunner:
    """``RunnerEnded`` follows once all its processes have ended."""

    dataflow_id: str


@dataclass(frozen=True, slots=True)
class StartRecorders:
    """Answered with ``RecorderSettled``; recorders that run already are left alone."""

    record: PartRecord
    new_attempt: bool
    """The nodes are being started, not recorded already."""


@dataclass(frozen=True, slots=True)
class WriteLog:
    level: Literal["info", "warning"]
    text: str


@dataclass(frozen=True, slots=True)
class ExitDaemon:
    """End the process after queued messages were sent; the last command."""


Command = (
    SavePart
    | DropPart
    | SendToCoordinator
    | Connect
    | StartRunner
    | StartLater
    | AdoptRunner
    | SendToRunner
    | SetRunnerLinks
    | ReadNodes
    | EndRunner
    | KillRunner
    | StartRecorders
    | WriteLog
    | ExitDaemon
)
