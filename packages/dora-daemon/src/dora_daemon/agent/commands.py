"""Commands of the agent's state machine to its service; frozen, free of I/O."""

from __future__ import annotations

from typing import Literal

from dora_config.protocol.daemon import DaemonMessage
from dora_config.protocol.runner import RunnerRequest
from dora_daemon.agent.records import PartRecord
from dora_node_api.frozen import FrozenRecord


class SavePart(FrozenRecord):
    """Write the record to disk before any later command is executed."""

    record: PartRecord


class DropPart(FrozenRecord):
    dataflow_id: str


class SendToCoordinator(FrozenRecord):
    """Send a message; drop it without a connection: a registration contains the same facts."""

    message: DaemonMessage


class Connect(FrozenRecord):
    """Connect to the coordinator; all adopted runners have answered or ended."""


class StartRunner(FrozenRecord):
    record: PartRecord


class StartLater(FrozenRecord):
    """Post ``PartDue`` after some seconds."""

    dataflow_id: str
    starts: int
    seconds: float


class AdoptRunner(FrozenRecord):
    """Connect to a runner that an earlier daemon process started."""

    record: PartRecord


class SendToRunner(FrozenRecord):
    dataflow_id: str
    request: RunnerRequest


class SetRunnerLinks(FrozenRecord):
    """Send the links of a part to its runner."""

    record: PartRecord


class ReadNodes(FrozenRecord):
    """Request the nodes of a runner; ``NodesRead`` follows."""

    dataflow_id: str
    attempt: int


class SignalRunner(FrozenRecord):
    """Stop the nodes of a runner (SIGTERM), or kill it; ``RunnerEnded`` follows."""

    dataflow_id: str
    signal: Literal["SIGTERM", "SIGKILL"] = "SIGKILL"


class StartRecorders(FrozenRecord):
    """Start the recorders of a part that do not run yet; ``RecorderSettled`` follows."""

    record: PartRecord
    new_attempt: bool
    """Whether the nodes are being started; otherwise they run already."""


class WriteLog(FrozenRecord):
    level: Literal["info", "warning"]
    text: str


class ExitDaemon(FrozenRecord):
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
    | SignalRunner
    | StartRecorders
    | WriteLog
    | ExitDaemon
)
