"""Events of the coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dora_config.history.entries import SavedEntry
from dora_config.protocol import control
from dora_config.protocol.builds import BuildDataflow
from dora_config.protocol.control import Decision, FailureCode
from dora_config.protocol.daemon import DaemonMessage, Register
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import CheckMachine, FleetStatus, StoredGeneration
from dora_config.protocol.runner import CurrentNode, DeleteParam, SetParam
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
    """The daemon's clock minus the coordinator's in seconds, if the message is a heartbeat."""


@dataclass(frozen=True, slots=True)
class DaemonDisconnected:
    connection: int


@dataclass(frozen=True, slots=True)
class ClientRequested:
    """``client`` is the number of one request; ``fresh_id`` an unused UUID, for starts."""

    client: int
    request: Decision
    fresh_id: str


@dataclass(frozen=True, slots=True)
class EndRequested:
    """The coordinator is to end, because all dataflows and daemons have ended or timed out."""


@dataclass(frozen=True, slots=True)
class ParamChanged:
    """A runner has set or deleted a parameter."""

    request: SetParam | DeleteParam


@dataclass(frozen=True, slots=True)
class PartAdded:
    """A user added a node on a daemon without a part of this dataflow."""

    daemon: str
    node: CurrentNode


@dataclass(frozen=True, slots=True)
class EndedPartChanged:
    """A user changed or restarted nodes whose part has ended: no runner can do it."""

    daemon: str
    nodes: tuple[CurrentNode, ...] = ()
    """Nodes that are new or replaced."""
    removed: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    """Nodes that are started; the others stay as they are."""


DataflowChange = ParamChanged | PartAdded | EndedPartChanged


@dataclass(frozen=True, slots=True)
class ChangeRequested:
    """A query changes a dataflow; answered once that is stored, as are all earlier events."""

    client: int
    dataflow_id: str
    change: DataflowChange | None


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A dataflow could not be built or placed."""

    name: str | None
    step: Literal["placement", "build"]
    reason: str


@dataclass(frozen=True, slots=True)
class FleetStep:
    """Step of a dataflow or copy towards its generation; `FleetStepEnded` reports its result."""

    copy: str
    generation: int
    """Generation of the fleet; 0: the dataflow is to be stopped."""
    request: control.ControlRequest
    build: BuildDataflow | None = None
    """Build that precedes the request."""

    @property
    def kind(self) -> Literal["start", "change", "check"]:
        if isinstance(self.request, CheckMachine):
            return "check"
        starts = isinstance(self.request, control.StartDataflow | control.ReplaceDataflow)
        return "start" if starts else "change"


@dataclass(frozen=True, slots=True)
class FleetStepEnded:
    """A step of the fleet was carried out, or refused with ``problem``."""

    step: FleetStep
    problem: str | None = None
    code: FailureCode = "failed"


DataflowTimer = Literal["start", "link", "recovery", "stop"]
"""Timers of one dataflow."""
CoordinatorTimer = Literal["silence", "forget", "fleet", "reconcile"]
"""Timers of the coordinator: daemons, the desired state, differences between records and reports.
"""


@dataclass(frozen=True, slots=True)
class TimerKey:
    """Identifies a timer: its purpose and the dataflow or daemon it belongs to."""

    purpose: DataflowTimer | CoordinatorTimer
    subject: str = ""


@dataclass(frozen=True, slots=True)
class TimerFired:
    key: TimerKey


Event = (
    StoreLoaded
    | DaemonRegistered
    | DaemonMessageReceived
    | DaemonDisconnected
    | TimerFired
    | ClientRequested
    | EndRequested
    | ChangeRequested
    | NotStarted
    | FleetStepEnded
)
