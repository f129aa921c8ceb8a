"""What can happen to a dataflow and its nodes, as the runner's state machine hears it; pure."""

from __future__ import annotations

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine.wiring import Edge
from dora_node_api.frozen import Frozen


class Exit(Frozen):
    """How a process ended: an exit code, or the name of the signal that ended it."""

    code: int | None = None
    signal: str | None = None
    out_of_memory: bool = False
    """The kernel killed it, or a process of it, for want of memory."""

    @property
    def ok(self) -> bool:
        return self.code == 0


class Prepared(Frozen):
    """Everything is in place: the nodes may be spawned."""


class NodeSpawned(Frozen):
    node: str
    incarnation: int
    pid: int


class SpawnFailed(Frozen):
    node: str
    incarnation: int
    error: str


class NodeConnected(Frozen):
    """A process said Hello. ``incarnation`` is ``None`` for a dynamic node."""

    node: str
    incarnation: int | None
    pid: int


class NodeExited(Frozen):
    """The process was reaped, and all it had printed was read."""

    node: str
    incarnation: int
    exit: Exit
    drained: bool = True
    """Nothing waits any more in the node's inputs."""
    stderr_tail: tuple[str, ...] = ()
    explanation: str | None = None
    """Why it may have ended before it connected."""


class NodeDetached(Frozen):
    """A dynamic node has ended or closed its connection."""

    node: str
    incarnation: int


class TimerFired(Frozen):
    """A timer armed by ArmTimer. ``node`` is ``None`` for timers of the dataflow."""

    node: str | None
    timer: str
    busy: bool = False
    """Messages wait in the node's inputs, and it took some since the timer was armed."""


class StopRequested(Frozen):
    """Stop the dataflow; ``grace`` ``None`` means the plan's."""

    reason: str
    grace: float | None = None
    force: bool = False
    comes_back: bool = False
    """Other machines are not told: this part will be spawned again."""


class NodeStopRequested(Frozen):
    node: str
    grace: float


class NodeRestartRequested(Frozen):
    node: str
    grace: float


class NodeReplaced(Frozen):
    """Another process of the node, ``incarnation``, has connected and waits for its place."""

    spec: ResolvedNode
    incarnation: int
    grace: float


class NodeSilent(Frozen):
    """A connected node was not heard from for ``seconds``, longer than it may be."""

    node: str
    incarnation: int
    seconds: float


class OutputsClosed(Frozen):
    """A node closed outputs (``None``: all) though its process lives on."""

    node: str
    outputs: tuple[str, ...] | None = None


class Released(Frozen):
    """The coordinator says that all nodes on all machines have connected."""


class NodeAdded(Frozen):
    node: ResolvedNode


class NodeRemoved(Frozen):
    """Forget a node that has ended."""

    node: str


class EdgeAdded(Frozen):
    source: str
    output: str
    target: str
    input: str


class EdgeRemoved(Frozen):
    source: str
    output: str
    target: str
    input: str


class LinksSet(Frozen):
    """The streams that leave this machine, as edges to LINK_NODE. From now on a link runs."""

    outgoing: tuple[Edge, ...]


class LinkSpawned(Frozen):
    incarnation: int
    pid: int


class LinkConnected(Frozen):
    """The link process said Hello."""

    incarnation: int


class LinkExited(Frozen):
    """The link process was reaped, or (``error``) could not be started."""

    incarnation: int
    exit: Exit
    drained: bool = True
    """Nothing waits any more in its queues."""
    error: str = ""
    last_words: str = ""


class SourceClosed(Frozen):
    """Nothing more comes of an output on another machine; its readers have the record already."""

    node: str
    output: str


class SourceReopened(Frozen):
    """A node on another machine runs again; the readers of its output have the record already."""

    node: str
    output: str


RunnerStimulus = (
    Prepared
    | NodeSpawned
    | SpawnFailed
    | NodeConnected
    | NodeExited
    | NodeDetached
    | TimerFired
    | StopRequested
    | NodeStopRequested
    | NodeRestartRequested
    | NodeReplaced
    | NodeSilent
    | OutputsClosed
    | Released
    | NodeAdded
    | NodeRemoved
    | EdgeAdded
    | EdgeRemoved
    | LinksSet
    | LinkSpawned
    | LinkConnected
    | LinkExited
    | SourceClosed
    | SourceReopened
)
