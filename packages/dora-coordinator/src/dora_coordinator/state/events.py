"""Events of the coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dora_config.history.entries import SavedEntry
from dora_config.protocol.control import ControlRequest, FailureCode
from dora_config.protocol.daemon import DaemonMessage, Register
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import FleetStatus, StoredGeneration
from dora_config.protocol.runner import DeleteParam, SetParam
from dora_coordinator.state.identities import MachineRecord, Proof
from dora_coordinator.state.records import DataflowRecord


@dataclass(frozen=True, slots=True)
class StoreLoaded:
    """The first event: what an earlier coordinator stored."""

    stored: Sequence[tuple[DataflowRecord, DataflowSpec]] = ()
    machines: Sequence[MachineRecord] = ()
    fleet: FleetStatus | None = None
    generations: Sequence[StoredGeneration] = ()
    history: Sequence[SavedEntry] = ()


@dataclass(frozen=True, slots=True)
class DaemonRegistered:
    """A connection sent a registration; ``address`` is the address of its other end."""

    connection: int
    register: Register
    address: str
    proof: Proof


@dataclass(frozen=True, slots=True)
class DaemonMessageReceived:
    connection: int
    message: DaemonMessage
    clock_offset: float | None = None
    """For a heartbeat: the daemon's clock minus the coordinator's, in seconds."""


@dataclass(frozen=True, slots=True)
class DaemonDisconnected:
    connection: int


@dataclass(frozen=True, slots=True)
class ClientRequested:
    """``fresh_id`` is an unused UUID, for requests that create a dataflow or a build."""

    client: int
    number: int
    request: ControlRequest
    fresh_id: str

    def is_of(self, client: int, number: int | None) -> bool:
        """Return whether it is this request of a client (None: any of the client)."""
        return self.client == client and number in (None, self.number)


@dataclass(frozen=True, slots=True)
class ClientCancelled:
    client: int
    number: int


@dataclass(frozen=True, slots=True)
class ClientDisconnected:
    client: int


@dataclass(frozen=True, slots=True)
class TopicChunkTaken:
    """A client displayed a chunk of watched outputs; the next may be sent."""

    client: int
    number: int
    stream: int


@dataclass(frozen=True, slots=True)
class LogLinesSent:
    """Log lines of a stream were written to the client's socket."""

    stream: int


@dataclass(frozen=True, slots=True)
class BuildProgressSent:
    """Progress of a build was written to the client's socket."""

    build_id: str
    daemon: str


@dataclass(frozen=True, slots=True)
class ParamChangedByRunner:
    """A runner has set or deleted a parameter; answered once that is stored."""

    client: int
    dataflow_id: str
    change: SetParam | DeleteParam
    number: int = 1


@dataclass(frozen=True, slots=True)
class FleetStepEnded:
    """A step of the fleet was carried out, or refused with ``problem``."""

    copy: str
    generation: int
    problem: str | None = None
    code: FailureCode = "failed"
    kind: Literal["start", "change", "check"] = "change"


DataflowTimer = Literal["start", "link", "recovery", "retry", "stop"]
"""Timers of one dataflow."""
CoordinatorTimer = Literal["silence", "forget", "destroy", "build", "viewer", "fleet"]
"""Timers of the coordinator: daemons, its own end, builds, viewers, the desired state."""


@dataclass(frozen=True, slots=True)
class TimerKey:
    """Identifies a timer: its purpose and the dataflow, build or daemon it belongs to."""

    purpose: DataflowTimer | CoordinatorTimer
    subject: str = ""
    daemon: str = ""


@dataclass(frozen=True, slots=True)
class TimerFired:
    key: TimerKey


ClientEvent = (
    ClientRequested
    | ClientCancelled
    | ClientDisconnected
    | TopicChunkTaken
    | LogLinesSent
    | BuildProgressSent
)

Event = (
    StoreLoaded
    | DaemonRegistered
    | DaemonMessageReceived
    | DaemonDisconnected
    | TimerFired
    | ParamChangedByRunner
    | FleetStepEnded
    | ClientEvent
)
