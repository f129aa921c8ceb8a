"""What can happen to a dataflow and its nodes, as the runner's state machine hears it; pure."""

from __future__ import annotations

from dataclasses import dataclass

from dora_config.resolved import ResolvedNode


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: an exit code, or the name of the signal that ended it."""

    code: int | None = None
    signal: str | None = None

    @property
    def ok(self) -> bool:
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything is in place: the nodes may be spawned."""


@dataclass(frozen=True, slots=True)
class NodeSpawned:
    node: str
    incarnation: int
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    node: str
    incarnation: int
    error: str


@dataclass(frozen=True, slots=True)
class NodeConnected:
    """A process said Hello. ``incarnation`` is ``None`` for a dynamic node."""

    node: str
    incarnation: int | None
    pid: int


@dataclass(frozen=True, slots=True)
class NodeExited:
    """The process was reaped, and all it had printed was read."""

    node: str
    incarnation: int
    exit: Exit
    drained: bool = True
    """Nothing waits any more in the node's inputs."""
    stderr_tail: tuple[str, ...] = ()
    explanation: str | None = None
    """Why it may have ended before it connected."""


@dataclass(frozen=True, slots=True)
class NodeDetached:
    """A dynamic node has ended or closed its connection."""

    node: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer armed by ArmTimer. ``node`` is ``None`` for timers of the dataflow."""

    node: str | None
    timer: str
    queued: int = 0
    """Messages that still wait in the node's inputs."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Stop the dataflow; ``grace`` ``None`` means the plan's."""

    reason: str
    grace: float | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class NodeStopRequested:
    node: str
    grace: float


@dataclass(frozen=True, slots=True)
class NodeRestartRequested:
    node: str
    grace: float


@dataclass(frozen=True, slots=True)
class NodeReplaced:
    """Another process of the node, ``incarnation``, has connected and waits for its place."""

    spec: ResolvedNode
    incarnation: int
    grace: float


@dataclass(frozen=True, slots=True)
class NodeSilent:
    """A connected node was not heard from for ``seconds``, longer than it may be."""

    node: str
    incarnation: int
    seconds: float


@dataclass(frozen=True, slots=True)
class OutputsClosed:
    """A node closed outputs (``None``: all) though its process lives on."""

    node: str
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """The coordinator says that all nodes on all machines have connected."""


@dataclass(frozen=True, slots=True)
class NodeAdded:
    node: ResolvedNode


@dataclass(frozen=True, slots=True)
class NodeRemoved:
    """Forget a node that has ended."""

    node: str


@dataclass(frozen=True, slots=True)
class EdgeAdded:
    source: str
    output: str
    target: str
    input: str


@dataclass(frozen=True, slots=True)
class EdgeRemoved:
    source: str
    output: str
    target: str
    input: str


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
)
