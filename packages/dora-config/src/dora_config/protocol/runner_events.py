"""Events and results that a runner reports; pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from dora_config.dataflow.sources import LogLevel as LogLevel
from dora_config.frozen import Frozen
from dora_config.protocol.links import LinkReport

LOG_LEVELS: Final[tuple[LogLevel, ...]] = ("stdout", "trace", "debug", "info", "warn", "error")
"""Lowest first; ``stdout`` includes everything, also plain printed lines."""

DATAFLOW_ENDED: Final = "the dataflow has ended"
"""Why a request to its runner is refused."""

_RANK: Final[dict[str, int]] = {level: rank for rank, level in enumerate(LOG_LEVELS)}


def passes(level: str, wanted: str | None) -> bool:
    """Return whether ``level`` is at least as important as ``wanted``; an unknown one is lowest."""
    return wanted is None or _RANK.get(level, 0) >= _RANK[wanted]


# ----------------------------------------------------------------------------------- results


class NodeResult(Frozen):
    """How one node ended; ``message`` is a full sentence for failures, else empty."""

    node: str
    outcome: Literal["success", "failed", "cascading"]
    message: str = ""
    caused_by: str | None = None
    """For ``cascading``: the node whose failure caused this one."""
    exit_code: int | None = None
    signal: str | None = None
    """Name of the signal that ended the process, such as ``SIGKILL``."""
    stderr_tail: tuple[str, ...] = ()
    """Last lines of the node's stderr (at most 500)."""
    restarts: int = 0
    order: int = 0
    """Position in the order of ends, from 0; sorts failures by cause."""


class DataflowResult(Frozen):
    """How a dataflow ended on this machine."""

    dataflow_id: str
    name: str | None = None
    nodes: tuple[NodeResult, ...] = ()
    """In the order in which they ended."""
    stop_reason: str | None = None
    """Why it was stopped, such as ``"signal SIGINT"``; ``None``: it was not stopped."""
    error: str | None = None
    """Set if no node was started: the problems of the preparation, one per line."""
    log_dir: str | None = None

    @property
    def ok(self) -> bool:
        """Whether no node failed."""
        return self.error is None and all(n.outcome == "success" for n in self.nodes)

    @property
    def root_causes(self) -> tuple[NodeResult, ...]:
        """Nodes that failed by themselves, in the order of their ends."""
        return tuple(n for n in self.nodes if n.outcome == "failed")

    @property
    def cascading(self) -> tuple[NodeResult, ...]:
        """Nodes that failed because another node failed."""
        return tuple(n for n in self.nodes if n.outcome == "cascading")


# ------------------------------------------------------------------------------------ events


class LogLine(Frozen):
    """One log line of a node, or of the runner (``node`` is ``None``)."""

    kind: Literal["log"] = "log"
    ts: str
    """RFC 3339, milliseconds, UTC."""
    level: LogLevel
    node: str | None = None
    stream: Literal["stdout", "stderr"] = "stdout"
    message: str = ""
    target: str | None = None
    file: str | None = None
    line: int | None = None
    fields: dict[str, Any] | None = None


class NodeSpawned(Frozen):
    """The process of a node was started."""

    kind: Literal["node_spawned"] = "node_spawned"
    node: str
    pid: int
    incarnation: int
    restarts: int = 0


class NodeConnected(Frozen):
    """A node has subscribed to its inputs; a dynamic node has attached."""

    kind: Literal["node_connected"] = "node_connected"
    node: str
    pid: int
    incarnation: int
    dynamic: bool = False


class NodeRestarting(Frozen):
    """The process of a node ended and is started again after ``delay`` seconds."""

    kind: Literal["node_restarting"] = "node_restarting"
    node: str
    reason: str
    delay: float
    restarts: int
    failed: bool = True
    """The process failed; otherwise it ended normally, or a user requested the restart."""
    stderr_tail: tuple[str, ...] = ()
    """Last lines of its stderr, if it failed."""


class NodeEnded(Frozen):
    """A node has ended successfully, or a dynamic node has detached."""

    kind: Literal["node_ended"] = "node_ended"
    node: str
    dynamic: bool = False


class NodeFailed(Frozen):
    """A node has failed and is not restarted."""

    kind: Literal["node_failed"] = "node_failed"
    result: NodeResult


class NodesReady(Frozen):
    """All local nodes have connected; with ``hold_at_barrier`` the runner waits for ``Release``."""

    kind: Literal["nodes_ready"] = "nodes_ready"


class DataflowStarted(Frozen):
    """The start barrier opened."""

    kind: Literal["dataflow_started"] = "dataflow_started"
    dataflow_id: str


class DataflowStopping(Frozen):
    """STOP was sent to all nodes; SIGTERM follows after ``grace`` seconds (0: SIGKILL at once)."""

    kind: Literal["dataflow_stopping"] = "dataflow_stopping"
    reason: str
    grace: float


class DataflowFinished(Frozen):
    """Every node has ended; the last event."""

    kind: Literal["dataflow_finished"] = "dataflow_finished"
    result: DataflowResult


class LogLinesDropped(Frozen):
    """``count`` log lines were dropped because the reader of these events was slow."""

    kind: Literal["lines_shed"] = "lines_shed"
    count: int


class LinkChanged(Frozen):
    """The endpoints of the link or the state of a peer changed."""

    kind: Literal["link_changed"] = "link_changed"
    report: LinkReport


class WaitingChanged(Frozen):
    """Whether the remaining local nodes read only timers or logs.

    Sent for ``exit_when_nodes_finish``, where the dataflow ends once this holds on all machines.
    """

    kind: Literal["waiting_changed"] = "waiting_changed"
    only_virtual_left: bool


class NodesChanged(Frozen):
    """A request has changed what :class:`GetNodes` returns."""

    kind: Literal["nodes_changed"] = "nodes_changed"


RunnerEvent = Annotated[
    LogLine
    | NodeSpawned
    | NodeConnected
    | NodeRestarting
    | NodeEnded
    | NodeFailed
    | NodesReady
    | DataflowStarted
    | DataflowStopping
    | DataflowFinished
    | LogLinesDropped
    | LinkChanged
    | WaitingChanged
    | NodesChanged,
    Field(discriminator="kind"),
]
