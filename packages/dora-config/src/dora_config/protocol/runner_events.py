"""runner -> whoever follows it: what happens to a dataflow and how it ended; pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from dora_config.protocol.links import LinkReport
from dora_config.protocol.runner_message import RunnerMessage

LogLevel = Literal["stdout", "trace", "debug", "info", "warn", "error"]
"""Lowest first: ``stdout`` lets everything pass, plain printed lines included."""

LOG_LEVELS: Final[tuple[LogLevel, ...]] = ("stdout", "trace", "debug", "info", "warn", "error")


# ----------------------------------------------------------------------------------- results


class NodeResult(RunnerMessage):
    """How one node ended. ``message`` is a full sentence for failures, empty for success."""

    node: str
    outcome: Literal["success", "failed", "cascading"]
    message: str = ""
    caused_by: str | None = None
    """For ``cascading``: the node whose failure brought this one down."""
    exit_code: int | None = None
    signal: str | None = None
    """Name of the signal that ended it, for example ``SIGKILL``."""
    stderr_tail: tuple[str, ...] = ()
    """The last lines (at most 500) the node wrote to stderr."""
    restarts: int = 0
    order: int = 0
    """0 for the node that ended first, and so on; sorts failures by cause."""


class DataflowResult(RunnerMessage):
    """How a dataflow ended on this machine."""

    dataflow_id: str
    name: str | None = None
    nodes: tuple[NodeResult, ...] = ()
    """In the order in which they ended."""
    stop_reason: str | None = None
    """Why it was stopped (``"signal SIGINT"``, say); ``None``: it ended by itself."""
    error: str | None = None
    """Set when nothing ran at all: what could not be prepared, one problem a line."""
    log_dir: str | None = None

    @property
    def ok(self) -> bool:
        """True when no node failed."""
        return self.error is None and all(n.outcome == "success" for n in self.nodes)

    @property
    def root_causes(self) -> tuple[NodeResult, ...]:
        """Failed nodes that nobody else brought down, first cause first."""
        return tuple(n for n in self.nodes if n.outcome == "failed")

    @property
    def cascading(self) -> tuple[NodeResult, ...]:
        """Nodes that failed only because another did."""
        return tuple(n for n in self.nodes if n.outcome == "cascading")


# ------------------------------------------------------------------------------------ events


class LogLine(RunnerMessage):
    """One line of a node, or of the runner itself (``node`` is ``None``)."""

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


class NodeSpawned(RunnerMessage):
    """A process was started for a node."""

    kind: Literal["node_spawned"] = "node_spawned"
    node: str
    pid: int
    incarnation: int
    restarts: int = 0


class NodeConnected(RunnerMessage):
    """The node has subscribed (a dynamic node: has attached)."""

    kind: Literal["node_connected"] = "node_connected"
    node: str
    pid: int
    incarnation: int
    dynamic: bool = False


class NodeRestarting(RunnerMessage):
    """The process of a node ended and will be started again after ``delay`` seconds."""

    kind: Literal["node_restarting"] = "node_restarting"
    node: str
    reason: str
    delay: float
    restarts: int


class NodeEnded(RunnerMessage):
    """A node has ended for good with success, or a dynamic node has left."""

    kind: Literal["node_ended"] = "node_ended"
    node: str
    dynamic: bool = False


class NodeFailed(RunnerMessage):
    """A node has ended for good and failed."""

    kind: Literal["node_failed"] = "node_failed"
    result: NodeResult


class NodesReady(RunnerMessage):
    """All local nodes have connected; with ``hold_at_barrier`` the runner now waits for Release."""

    kind: Literal["nodes_ready"] = "nodes_ready"


class DataflowStarted(RunnerMessage):
    """The start barrier opened."""

    kind: Literal["dataflow_started"] = "dataflow_started"
    dataflow_id: str


class DataflowStopping(RunnerMessage):
    """STOP was sent to all nodes; ``grace`` seconds until SIGTERM (0: killed at once)."""

    kind: Literal["dataflow_stopping"] = "dataflow_stopping"
    reason: str
    grace: float


class DataflowFinished(RunnerMessage):
    """Every node has ended; the last event."""

    kind: Literal["dataflow_finished"] = "dataflow_finished"
    result: DataflowResult


class LogLinesDropped(RunnerMessage):
    """The reader of these events was too slow: ``count`` log lines were not handed to it."""

    kind: Literal["lines_shed"] = "lines_shed"
    count: int


class LinkChanged(RunnerMessage):
    """The link to other machines listens elsewhere, cannot listen, or a peer's state changed."""

    kind: Literal["link_changed"] = "link_changed"
    report: LinkReport


class WaitingChanged(RunnerMessage):
    """Whether all local nodes that are left wait for timers or logs alone; told only where the
    dataflow is to end once that holds on all its machines."""

    kind: Literal["waiting_changed"] = "waiting_changed"
    only_virtual_left: bool


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
    | WaitingChanged,
    Field(discriminator="kind"),
]
