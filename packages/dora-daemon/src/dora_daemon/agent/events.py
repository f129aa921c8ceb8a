"""Events of the agent's state machine; frozen, free of I/O.

Messages of the coordinator about parts are events, too.
"""

from __future__ import annotations

from dora_config.protocol import daemon as messages
from dora_config.protocol.calls import LinkPart
from dora_config.protocol.runner import NodeDefinitions, RunnerState
from dora_daemon.agent.records import PartRecord
from dora_node_api.frozen import FrozenRecord


class DaemonStarted(FrozenRecord):
    """The first event: runners of an earlier daemon process can be adopted."""


class CoordinatorConnected(FrozenRecord):
    """The daemon is registered: the coordinator decides what starts."""


class CoordinatorLost(FrozenRecord):
    """The connection to the coordinator ended."""


class CoordinatorAway(FrozenRecord):
    """There was no connection for ``seconds``: the machine starts its parts alone."""

    seconds: float


class PartDue(FrozenRecord):
    """The pause before another start of a part without the coordinator has passed."""

    dataflow_id: str
    starts: int
    """Starts in its record when the pause began."""


class RunFound(FrozenRecord):
    """A `dora run` can be adopted."""

    record: PartRecord


class RunnerPlaced(FrozenRecord):
    """A runner has its directory and is about to be spawned."""

    dataflow_id: str
    runtime_dir: str
    runtime_token: str
    log_dirs: dict[str, str]
    """Folder of each node's log file, by node id."""
    where: str = ""
    """Sentence about the folder at which relative paths start."""
    history_file: str = ""
    """File of the runner's events."""


class RunnerChanged(FrozenRecord):
    """A runner has reported another state, or its first one on a connection."""

    dataflow_id: str
    state: RunnerState


class RunnerRefused(FrozenRecord):
    """A runner of another version refuses requests; its nodes continue."""

    dataflow_id: str
    reason: str


class NodesRead(FrozenRecord):
    """The nodes that a runner has now, after a change."""

    dataflow_id: str
    attempt: int
    nodes: NodeDefinitions
    log_dirs: dict[str, str]
    """Folder of each node's log file, by node id."""


class NodeNotAdded(FrozenRecord):
    """A node could not be started; its log remains."""

    dataflow_id: str
    attempt: int
    node: str
    log_dir: str
    """Folder of its log file."""


class RunnerEnded(FrozenRecord):
    """A runner and all its processes have ended; its result, if any, was reported before."""

    dataflow_id: str
    reason: str


class RecordingRequested(FrozenRecord):
    """The outputs of a dataflow on this machine are to be recorded."""

    dataflow_id: str


class RecorderSettled(FrozenRecord):
    """The recorders of a part record, or could not be started."""

    dataflow_id: str


class MachineStopping(FrozenRecord):
    """End the nodes; their dataflows continue here when the machine is back."""


class HandoverRequested(FrozenRecord):
    """End, and leave the runners to the next daemon process."""


PartMessage = (
    messages.PreparePart
    | LinkPart
    | messages.ConnectPart
    | messages.ReleasePart
    | messages.StopPart
    | messages.ForgetPart
    | messages.DescribePart
)
RunnerNotice = RunnerPlaced | RunnerChanged | RunnerRefused | RunnerEnded | NodesRead | NodeNotAdded
CoordinatorNotice = CoordinatorConnected | CoordinatorLost | CoordinatorAway | PartDue
RecorderNotice = RecordingRequested | RecorderSettled
Event = (
    PartMessage
    | RunnerNotice
    | RecorderNotice
    | CoordinatorNotice
    | DaemonStarted
    | RunFound
    | messages.EndDaemon
    | MachineStopping
    | HandoverRequested
)
"""``EndDaemon`` is also posted for SIGINT and SIGTERM; the second one does not wait for nodes."""
