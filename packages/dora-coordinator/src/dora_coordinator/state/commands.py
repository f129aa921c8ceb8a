"""What the coordinator's state may ask its service to do; imperative, frozen, free of I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dora_config.protocol.control import ControlAnswer, ControlProgress, EndedDataflow, FailureCode
from dora_config.protocol.daemon import CoordinatorMessage
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.dataflow.records import DataflowRecord
from dora_coordinator.state.events import TimerKey


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """Written before any later command is carried out.

    ``record`` has the parts that changed; parts that are stored and not in it stay as they are.
    ``spec`` is given only when the dataflow is new.
    """

    record: DataflowRecord
    spec: DataflowSpec | None = None

    @property
    def dataflow_id(self) -> str:
        return self.record.dataflow_id


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    dataflow_id: str


@dataclass(frozen=True, slots=True)
class AdmitDaemon:
    """From now on messages to ``daemon`` go to ``connection``."""

    connection: int
    daemon: str


@dataclass(frozen=True, slots=True)
class SendToDaemon:
    """Dropped when the daemon is not connected: it will register and report."""

    daemon: str
    message: CoordinatorMessage


@dataclass(frozen=True, slots=True)
class SignCertificate:
    """Answer a daemon's request with a certificate, or log why there is none."""

    daemon: str
    request: str


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close a daemon's connection, after sending ``last`` when given."""

    connection: int
    last: CoordinatorMessage | None = None


@dataclass(frozen=True, slots=True)
class AnswerClient:
    client: int
    number: int
    answer: ControlAnswer


@dataclass(frozen=True, slots=True)
class SendProgress:
    """Progress of a request that goes on."""

    client: int
    number: int
    progress: ControlProgress


@dataclass(frozen=True, slots=True)
class FailClient:
    client: int
    number: int
    message: str
    code: FailureCode = "failed"
    ended: EndedDataflow | None = None


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Fire ``key`` at ``at`` (the service's clock), in place of an earlier arming of it."""

    key: TimerKey
    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    key: TimerKey


@dataclass(frozen=True, slots=True)
class Log:
    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class EndCoordinator:
    """The last command: what was sent before is flushed first."""


Command = (
    SaveRecord
    | DeleteRecord
    | AdmitDaemon
    | SendToDaemon
    | SignCertificate
    | CloseConnection
    | AnswerClient
    | SendProgress
    | FailClient
    | ArmTimer
    | CancelTimer
    | Log
    | EndCoordinator
)
