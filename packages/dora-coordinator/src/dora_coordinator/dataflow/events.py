"""What can happen to one dataflow; past tense, frozen, free of I/O."""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.protocol.daemon import PartReport
from dora_config.protocol.runner import DataflowResult


@dataclass(frozen=True, slots=True)
class StartAccepted:
    """The dataflow was accepted and stored."""


@dataclass(frozen=True, slots=True)
class PartReported:
    """A daemon said where its part stands; ``registering``: as part of its status report."""

    daemon: str
    report: PartReport
    registering: bool = False


@dataclass(frozen=True, slots=True)
class PartGone:
    """Nothing of the part is left on its daemon."""

    daemon: str
    attempt: int
    reason: str
    node: str | None = None
    result: DataflowResult | None = None


@dataclass(frozen=True, slots=True)
class PartAbsent:
    """A daemon registered and did not report its part."""

    daemon: str


@dataclass(frozen=True, slots=True)
class DaemonLost:
    daemon: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    grace: float | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class TimerExpired:
    """A timer of this dataflow fired: ``start``, ``stop``, ``recovery`` or ``retry``."""

    purpose: str
    daemon: str = ""


DataflowEvent = (
    StartAccepted | PartReported | PartGone | PartAbsent | DaemonLost | StopRequested | TimerExpired
)
