"""Events of the runner's state machine; pure."""

from __future__ import annotations

from typing import Literal

from dora_config.dataflow.resolved import ResolvedNode
from dora_daemon.runner.machine.edges import Edge
from dora_node_api.frozen import FrozenRecord

TimerName = Literal[
    "startup",
    "steady",
    "finish",
    "terminate",
    "kill",
    "backoff",
    "notice",
    "barrier_notice",
    "stop_after",
    "left_over",
]
"""Timers of nodes; ``barrier_notice``, ``stop_after`` and ``left_over`` of the dataflow;
``notice``, and another ``backoff`` and ``kill``, of the link."""


class Exit(FrozenRecord):
    """Exit code of a process, or the signal that ended it."""

    code: int | None = None
    signal: str | None = None
    """Name of the signal, or its number if it has no name."""
    out_of_memory: bool = False
    """Whether the kernel killed the process or a child of it for lack of memory."""

    @property
    def ok(self) -> bool:
        return self.code == 0


# ------------------------------------------------------------------------- one node's process


class NodeSpawned(FrozenRecord):
    """The process of a node was started."""

    node: str
    incarnation: int
    pid: int


class SpawnFailed(FrozenRecord):
    """The process of a node could not be started."""

    node: str
    incarnation: int
    error: str


class NodeConnected(FrozenRecord):
    """The process of a node sent Hello. ``incarnation`` is ``None`` for a dynamic node."""

    node: str
    incarnation: int | None
    pid: int


class NodeExited(FrozenRecord):
    """The process of a node was reaped and its output was read completely."""

    node: str
    incarnation: int
    exit: Exit
    drained: bool = True
    """Whether the node's input queues are empty."""
    stderr_tail: tuple[str, ...] = ()
    explanation: str | None = None
    """Probable cause if it failed."""


class NodeDetached(FrozenRecord):
    """A dynamic node ended or closed its connection."""

    node: str
    incarnation: int


class NodeStalled(FrozenRecord):
    """The process of a connected node could not run for ``seconds``, longer than allowed."""

    node: str
    incarnation: int
    seconds: float


class NodeCorrupted(FrozenRecord):
    """The process of a node has overwritten shared memory that other nodes read."""

    node: str
    incarnation: int
    problem: str


class TimerFired(FrozenRecord):
    """A timer armed by ArmTimer fired. ``node`` is ``None`` for timers of the dataflow."""

    node: str | None
    timer: TimerName
    busy: bool = False
    """``finish``: the node has messages queued and has received some since the timer was armed.
    ``left_over``: any node has messages queued, or has received some since then."""


# -------------------------------------------------------------------------------- the dataflow


class Prepared(FrozenRecord):
    """Queues and sockets exist: nodes may be spawned."""


class BarrierReleased(FrozenRecord):
    """All nodes on all machines have connected, as reported by the coordinator."""


class RunStopRequested(FrozenRecord):
    """Stop the dataflow; ``grace`` ``None`` selects the plan's."""

    reason: str
    grace: float | None = None
    force: bool = False
    recovering: bool = False
    """Whether this part will be started again, so that the link sends no notice to its peers."""


class NodeStopRequested(FrozenRecord):
    """Stop one node."""

    node: str
    grace: float
    leaves: bool = False
    """Remove the node after its end, which then does not end the dataflow on this machine."""


class NodeRestartRequested(FrozenRecord):
    """Restart one node, regardless of its policy."""

    node: str
    grace: float


class ReplacementPrepared(FrozenRecord):
    """A new program of a running node can be started."""

    node: str


class ReplacementConnected(FrozenRecord):
    """The staged process of a node has connected and waits for the former one to end."""

    spec: ResolvedNode
    incarnation: int
    grace: float


class ReplacementAbandoned(FrozenRecord):
    """The staged process of a node was ended before it had to take over; the former one runs on.

    It could not be started or did not connect in time, or the request was cancelled.
    """

    node: str
    incarnation: int


class ReplacementLost(FrozenRecord):
    """The staged process of a node ended by itself, found when it had to take over.

    The former one has ended, so the node has no process.
    """

    node: str
    incarnation: int


class ProgramChanged(FrozenRecord):
    """The program of a node without a process was replaced: start it."""

    spec: ResolvedNode


ReplacementEvent = (
    ReplacementPrepared
    | ReplacementConnected
    | ReplacementAbandoned
    | ReplacementLost
    | ProgramChanged
)


class NodeAdded(FrozenRecord):
    """A node joins the running dataflow."""

    spec: ResolvedNode


class NodeRemoved(FrozenRecord):
    """An ended node leaves the dataflow."""

    node: str


# ----------------------------------------------------------------------------------- edges


class OutputsClosed(FrozenRecord):
    """A node that still runs closed these outputs (``None``: all)."""

    node: str
    outputs: tuple[str, ...] | None = None


class EdgeAdded(FrozenRecord):
    """An input was connected."""

    edge: Edge


class EdgeRemoved(FrozenRecord):
    """An input was disconnected."""

    edge: Edge


class SourceClosed(FrozenRecord):
    """An output on another machine ended; the link has announced it to the readers."""

    node: str
    output: str


class SourceReopened(FrozenRecord):
    """A node on another machine restarted; the link has announced it to the readers."""

    node: str
    output: str


class SourceLost(FrozenRecord):
    """The machine of an output has ended permanently."""

    node: str
    output: str


EdgeEvent = OutputsClosed | EdgeAdded | EdgeRemoved | SourceClosed | SourceReopened | SourceLost

# ------------------------------------------------------------------------------------ the link


class OutgoingStreamsSet(FrozenRecord):
    """The streams that leave this machine, as edges to LINK_NODE; a link must run."""

    edges: tuple[Edge, ...]


class LinkSpawned(FrozenRecord):
    """The link process was started."""

    incarnation: int


class LinkConnected(FrozenRecord):
    """The link process sent Hello."""

    incarnation: int


class LinkExited(FrozenRecord):
    """The link process was reaped, or (``error``) could not be started."""

    incarnation: int
    exit: Exit
    drained: bool
    """Whether the queues into the link are empty."""
    error: str = ""
    last_line: str = ""
    """Last line on stderr."""


LinkProcessEvent = LinkSpawned | LinkConnected | LinkExited

ProcessEvent = NodeSpawned | SpawnFailed | NodeExited | NodeDetached | NodeStalled | NodeCorrupted
"""Events of one process of a node."""

StateEvent = (
    Prepared
    | ProcessEvent
    | NodeConnected
    | TimerFired
    | RunStopRequested
    | NodeStopRequested
    | NodeRestartRequested
    | ReplacementEvent
    | BarrierReleased
    | NodeAdded
    | NodeRemoved
    | EdgeEvent
    | OutgoingStreamsSet
    | LinkProcessEvent
)

NodeEvent = ProcessEvent | NodeConnected | ReplacementAbandoned | ReplacementLost | TimerFired
"""Events that concern a single node."""
