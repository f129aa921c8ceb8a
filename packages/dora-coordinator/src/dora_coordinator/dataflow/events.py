"""Events of one dataflow."""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.protocol.daemon import PartDescribed, PartLost, PartReport
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.dataflow.differences import Kind
from dora_coordinator.state.events import (
    DataflowTimer,
    EndedPartChanged as EndedPartChanged,
    ParamChanged as ParamChanged,
    PartAdded as PartAdded,
)


@dataclass(frozen=True, slots=True)
class RecordLoaded:
    """The coordinator was restarted and has loaded the dataflow's record."""


@dataclass(frozen=True, slots=True)
class StartAccepted:
    """The dataflow is new and its record is stored."""


@dataclass(frozen=True, slots=True)
class PartReported:
    """A daemon reported the state of its part; ``registering``: with its registration."""

    daemon: str
    report: PartReport
    registering: bool = False
    rebooted: bool = False
    """Whether the machine was rebooted since the last registration."""
    end_stored: bool = False
    """An earlier coordinator has stored its end."""


@dataclass(frozen=True, slots=True)
class PartGone:
    """A daemon reported that its part does not exist any more."""

    daemon: str
    message: PartLost


@dataclass(frozen=True, slots=True)
class PartAbsent:
    """A daemon registered without reporting its part."""

    daemon: str
    rebooted: bool = False
    """Whether the machine was rebooted since the last registration."""


@dataclass(frozen=True, slots=True)
class DaemonLost:
    """The connection to a daemon was lost."""

    daemon: str
    silent: float | None = None
    """Seconds of silence before the loss; None: the connection was closed after a recent message.
    """


@dataclass(frozen=True, slots=True)
class RepairDue:
    """A difference in a part is to be repaired now."""

    daemon: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The stop was requested; times in seconds, None for the default."""

    grace: float | None = None
    force: bool = False
    restart_as: str | None = None
    """Id of the dataflow that is started afterwards."""
    restart_spec: DataflowSpec | None = None
    """Specification of the dataflow that is started afterwards; None: the one that ends."""
    reason: str | None = None
    """Why, unless a user requested it."""


@dataclass(frozen=True, slots=True)
class NodesDescribed:
    """A daemon described the nodes of its part, which were changed while they ran."""

    daemon: str
    message: PartDescribed


@dataclass(frozen=True, slots=True)
class TimerExpired:
    """A timer of this dataflow fired."""

    purpose: DataflowTimer


PhaseEvent = (
    StartAccepted | PartReported | PartGone | PartAbsent | DaemonLost | StopRequested | TimerExpired
)
"""Events whose consequences depend on the phase."""

DataflowEvent = (
    PhaseEvent
    | RepairDue
    | RecordLoaded
    | ParamChanged
    | NodesDescribed
    | PartAdded
    | EndedPartChanged
)
