"""Commands that the coordinator's state machine returns to its service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dora_config.errors import DoraError
from dora_config.history.entries import HistoryEntry
from dora_config.protocol import control
from dora_config.protocol.daemon import CoordinatorMessage
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import FleetStatus, StoredGeneration
from dora_coordinator.state.events import FleetStep, TimerKey
from dora_coordinator.state.identities import MachineRecord
from dora_coordinator.state.records import DataflowRecord


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """Store a dataflow before any later command is executed.

    ``record`` contains the parts that changed; other stored parts stay. ``spec`` is given when it
    is new or changed.
    """

    record: DataflowRecord
    spec: DataflowSpec | None = None
    removed: tuple[str, ...] = ()
    """Daemons whose stored parts are deleted."""


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """Delete a stored dataflow."""

    dataflow_id: str


@dataclass(frozen=True, slots=True)
class SaveMachine:
    """Store the identity of a machine before any later command is executed."""

    record: MachineRecord


@dataclass(frozen=True, slots=True)
class SaveFleet:
    """Store the position of the fleet and changed generations; ``removed`` ones are deleted."""

    status: FleetStatus
    generations: tuple[StoredGeneration, ...] = ()
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SaveSuccession:
    """Store the coordinator's place in the cluster."""


@dataclass(frozen=True, slots=True)
class AppendHistory:
    """Write an event to the history file; later commands are executed even if that fails."""

    entry: HistoryEntry


Change = SaveRecord | DeleteRecord | SaveMachine | SaveFleet
"""Changes of the store."""


@dataclass(frozen=True, slots=True)
class AdmitDaemon:
    """Send later messages for ``daemon`` to ``connection``."""

    connection: int
    daemon: str


@dataclass(frozen=True, slots=True)
class SendToDaemon:
    """Send a message; dropped if the daemon is not connected, since it reports its parts when it
    registers.
    """

    daemon: str
    message: CoordinatorMessage


@dataclass(frozen=True, slots=True)
class SignCertificate:
    """Send a certificate for a daemon's request, or log why it cannot be signed."""

    daemon: str
    request: str
    digest: str
    """Digest of the key that the request must have; empty: any key."""


@dataclass(frozen=True, slots=True)
class RenewToken:
    """Send the current token to a daemon that connected with an earlier one."""

    daemon: str


@dataclass(frozen=True, slots=True)
class RotateToken:
    """Replace the token, send the new one to ``daemons``, and answer with `TokenRotated`."""

    client: int
    grace: float
    daemons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close a daemon's connection after sending ``last``, if given."""

    connection: int
    last: CoordinatorMessage | None = None


class RequestRefused(DoraError):
    """A client's request is refused; ``code`` and ``ended`` are part of the answer."""

    def __init__(
        self,
        code: control.FailureCode,
        message: str,
        ended: control.EndedDataflow | None = None,
    ) -> None:
        super().__init__(message)
        self.code: control.FailureCode = code
        self.ended = ended


@dataclass(frozen=True, slots=True)
class Begun:
    """Answer to a request about dataflows, which have not reached their state yet."""

    dataflows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerClient:
    """Answer a request, once its changes are stored."""

    client: int
    answer: Begun | control.ControlAnswer


@dataclass(frozen=True, slots=True)
class FailClient:
    """Refuse a request."""

    client: int
    problem: RequestRefused


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Fire ``key`` at ``at`` (the service's clock), replacing an earlier time of that key."""

    key: TimerKey
    at: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Do not fire a timer; ignored if it is not armed."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line to the coordinator's log."""

    level: Literal["info", "warning", "error"]
    text: str


@dataclass(frozen=True, slots=True)
class EndCoordinator:
    """Exit once everything queued has been sent."""


Command = (
    SaveRecord
    | DeleteRecord
    | SaveMachine
    | SaveFleet
    | SaveSuccession
    | FleetStep
    | AppendHistory
    | AdmitDaemon
    | SendToDaemon
    | SignCertificate
    | RenewToken
    | RotateToken
    | CloseConnection
    | AnswerClient
    | FailClient
    | ArmTimer
    | CancelTimer
    | Log
    | EndCoordinator
)
