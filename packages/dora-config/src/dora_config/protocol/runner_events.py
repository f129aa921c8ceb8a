"""Events and results that a runner reports; pure."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from dora_config.dataflow.sources import LOG_LEVELS, LogLevel
from dora_config.frozen import Frozen
from dora_config.protocol.links import LinkReport
from dora_config.protocol.states import NodeResult as NodeResult

DATAFLOW_ENDED: Final = "the dataflow has ended"
"""Error of a request to a runner whose dataflow has ended."""

RECENT_SECONDS: Final = 2.0
"""Interval at which a runner looks at the counters of all edges."""

_RANK: Final[dict[str, int]] = {level: rank for rank, level in enumerate(LOG_LEVELS)}


def passes(level: str, wanted: str | None) -> bool:
    """Return whether ``level`` is at least as important as ``wanted``; an unknown one is lowest."""
    return wanted is None or _RANK.get(level, 0) >= _RANK[wanted]


# ----------------------------------------------------------------------------------- results


class DataflowResult(Frozen):
    """End of a dataflow on this machine."""

    dataflow_id: str
    name: str | None = None
    nodes: tuple[NodeResult, ...] = ()
    """Results in the order in which the nodes ended."""
    stop_reason: str | None = None
    """Reason of the stop, such as ``"signal SIGINT"``; ``None``: the dataflow was not stopped."""
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


class LogLine(Frozen, kind="log"):
    """One log line of a node, or of the runner (``node`` is ``None``)."""

    model_config = ConfigDict(populate_by_name=True)

    ts: str
    """RFC 3339, milliseconds, UTC."""
    level: LogLevel
    node: str | None = None
    stream: Literal["stdout", "stderr"] = "stdout"
    message: str = Field(validation_alias="msg", serialization_alias="msg")
    target: str | None = None
    file: str | None = None
    line: int | None = None
    fields: dict[str, Any] | None = None

    @property
    def time(self) -> float:
        """Unix time; 0 if malformed."""
        try:
            return datetime.fromisoformat(self.ts).timestamp()
        except ValueError:
            return 0.0

    def facts(self) -> dict[str, Any]:
        """Return the object of the log file."""
        return self.model_dump(by_alias=True, exclude_none=True, exclude={"kind"})


class NodeSpawned(Frozen, kind="node_spawned"):
    """The process of a node was started."""

    node: str
    pid: int
    incarnation: int
    restarts: int = 0


class NodeConnected(Frozen, kind="node_connected"):
    """A node has subscribed to its inputs; a dynamic node has attached."""

    node: str
    pid: int
    incarnation: int
    dynamic: bool = False


class NodeRestarting(Frozen, kind="node_restarting"):
    """The process of a node ended and is started again after ``delay`` seconds."""

    node: str
    reason: str
    delay: float
    restarts: int
    failed: bool = True
    """The process failed; otherwise it ended normally, or a user requested the restart."""
    stderr_tail: tuple[str, ...] = ()
    """Last lines of its stderr, if it failed."""


class NodeEnded(Frozen, kind="node_ended"):
    """A node has ended successfully, or a dynamic node has detached."""

    node: str
    dynamic: bool = False


class NodeFailed(Frozen, kind="node_failed"):
    """A node has failed and is not restarted."""

    result: NodeResult


class DataflowStarted(Frozen, kind="dataflow_started"):
    """The start barrier opened."""

    dataflow_id: str


class DataflowStopping(Frozen, kind="dataflow_stopping"):
    """STOP was sent to all nodes; SIGTERM follows after ``grace`` seconds (0: SIGKILL at once)."""

    reason: str
    grace: float


class DataflowFinished(Frozen, kind="dataflow_finished"):
    """Every node has ended."""

    result: DataflowResult


class LogLinesDropped(Frozen, kind="lines_shed"):
    """``count`` log lines were dropped because the reader of these events was slow."""

    count: int


class RunnerState(Frozen, kind="state"):
    """State of a runner without the state of its nodes; an event whenever it has changed."""

    phase: Literal["starting", "ready", "running", "stopping", "finished"]
    """``ready``: all local nodes have connected, and with ``hold_at_barrier`` the runner waits for
    ``Release``."""
    result: DataflowResult | None = None
    link: LinkReport | None = None
    """``None`` if no edge leaves or enters this machine. A change of its figures alone, such as the
    round trip time, is not reported."""
    only_virtual_left: bool = False
    """The remaining local nodes read only logs, or with ``exit_when_nodes_finish`` timers and logs.
    The dataflow ends once this holds on all machines."""
    revision: int = 0
    """Number of changes of what ``GetNodes`` returns; starts at ``RunPlan.revision``."""

    def without_figures(self) -> RunnerState:
        """Return the state without round trip times, whose changes are not reported."""
        if self.link is None:
            return self
        return self.model_copy(update={"link": self.link.without_figures()})


RunnerEvent = Annotated[
    NodeSpawned
    | NodeConnected
    | NodeRestarting
    | NodeEnded
    | NodeFailed
    | DataflowStarted
    | DataflowStopping
    | DataflowFinished
    | RunnerState,
    Field(discriminator="kind"),
]
RunOutput = RunnerEvent | LogLine | LogLinesDropped
"""Events that `dora run` gets from its runner; daemons read log lines from files."""
