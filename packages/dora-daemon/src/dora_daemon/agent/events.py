"""What can happen to a daemon's agent; past tense, frozen, free of I/O."""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.protocol.daemon import CoordinatorMessage
from dora_config.protocol.runner import RunnerEvent, RunnerStatus


@dataclass(frozen=True, slots=True)
class CoordinatorSpoke:
    """Anything but the answer to a registration and to a heartbeat, which the link keeps."""

    message: CoordinatorMessage


@dataclass(frozen=True, slots=True)
class RunnerPlaced:
    """A runner has its directory and is about to be started; ``log_dirs`` by node id.

    ``where`` is a sentence about where relative paths start.
    """

    dataflow_id: str
    runtime_dir: str
    runtime_token: str
    log_dirs: dict[str, str]
    where: str = ""


@dataclass(frozen=True, slots=True)
class RunnerReached:
    """A runner answers on its control socket: one just started, or one that was adopted."""

    dataflow_id: str
    status: RunnerStatus


@dataclass(frozen=True, slots=True)
class RunnerSpoke:
    dataflow_id: str
    event: RunnerEvent


@dataclass(frozen=True, slots=True)
class RunnerGone:
    """The runner ended without a result, and all that it had started is gone too."""

    dataflow_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class EndAsked:
    """SIGINT, SIGTERM or the coordinator: end, dataflows first. A second time: at once."""


@dataclass(frozen=True, slots=True)
class MachineStops:
    """End the nodes; their dataflows go on here when the machine is back."""


@dataclass(frozen=True, slots=True)
class HandOverAsked:
    """End and leave the runners to the daemon that comes next."""


Event = (
    CoordinatorSpoke
    | RunnerPlaced
    | RunnerReached
    | RunnerSpoke
    | RunnerGone
    | EndAsked
    | MachineStops
    | HandOverAsked
)
