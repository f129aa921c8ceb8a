"""CLI <-> coordinator: requests, replies, and what comes in between; does no I/O.

The client greets, the coordinator welcomes it or refuses. Then each request carries a number; it is
answered by any count of :class:`Progress` frames with that number and one :class:`Answer` or
:class:`Failure`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from dora_config.protocol.builds import BuildDataflow, BuildProgress, BuildTriggered, Built
from dora_config.protocol.calls import NodeRequest, RunnerReplies
from dora_config.protocol.dataflow import DataflowSpec, LogFilter, NodeView
from dora_config.protocol.envelope import Codec, Message, ProgramVersion
from dora_config.protocol.links import PeerState
from dora_config.protocol.runner import NodeResult
from dora_config.protocol.topics import (
    MAX_TOPICS,
    SampleBytes,
    TopicsEnd,
    WatchedTopics,
    WindowSeconds,
)

# -------------------------------------------------------------------------------- requests


class DataflowRef(Message):
    """Which dataflow: a UUID or a name; both empty means the only one that runs."""

    uuid: str | None = None
    name: str | None = None


class StartDataflow(Message):
    """Place, prepare and release a dataflow; progress :class:`StartTriggered`, answer
    :class:`Started`.
    """

    kind: Literal["start"] = "start"
    spec: DataflowSpec
    dry_run: bool = False
    """Only say where the nodes would run: answered with :class:`PlacementPlan`."""


class StopDataflow(Message):
    """Stop and wait for the end; answered with :class:`Ended`."""

    kind: Literal["stop"] = "stop"
    dataflow: DataflowRef = DataflowRef()
    all: bool = False
    grace: float | None = None
    force: bool = False


class RestartDataflow(Message):
    """Stop, then start the stored specification; answered with :class:`Restarted`."""

    kind: Literal["restart"] = "restart"
    dataflow: DataflowRef = DataflowRef()
    grace: float | None = None
    force: bool = False


class WaitForEnd(Message):
    """Answered with :class:`Ended` once the dataflow has ended."""

    kind: Literal["wait"] = "wait"
    dataflow: DataflowRef = DataflowRef()


class ListDataflows(Message):
    """Answered with :class:`DataflowList`."""

    kind: Literal["list"] = "list"


class ListNodes(Message):
    """Answered with :class:`NodeList`; without a reference: the nodes of all running dataflows."""

    kind: Literal["nodes"] = "nodes"
    dataflow: DataflowRef | None = None


class ForgetEnded(Message):
    """Forget what has ended; answered with :class:`DataflowList` of what was forgotten."""

    kind: Literal["clean"] = "clean"


class ClusterStatus(Message):
    """Answered with :class:`ClusterReport`."""

    kind: Literal["status"] = "status"


class ReadLogs(Message):
    """Log lines as progress :class:`LogLines`; answered with :class:`LogsEnd` unless followed."""

    kind: Literal["logs"] = "logs"
    dataflow: DataflowRef = DataflowRef()
    nodes: tuple[str, ...] = ()
    """Empty: all nodes."""
    filter: LogFilter = LogFilter()
    follow: bool = False


class Destroy(Message):
    """End all daemons and the coordinator; answered with :class:`Destroyed` before it ends."""

    kind: Literal["destroy"] = "destroy"
    force: bool = False
    """Stop the dataflows that still run instead of refusing."""


class CallRunner(Message):
    """Passed on to the runners of a dataflow; answered with :class:`RunnerReplies`."""

    kind: Literal["call_runner"] = "call_runner"
    dataflow: DataflowRef = DataflowRef()
    node: str | None = None
    """The node it is about; ``None``: asked of every part."""
    request: NodeRequest


class DescribeDataflow(Message):
    """Answered with :class:`Described`."""

    kind: Literal["describe"] = "describe"
    dataflow: DataflowRef = DataflowRef()


class WatchTopics(Message):
    """Messages of outputs, or how often they come, as progress :class:`WatchedTopics`; answered
    with :class:`TopicsEnd` when the dataflow has ended.
    """

    kind: Literal["watch_topics"] = "watch_topics"
    dataflow: DataflowRef = DataflowRef()
    topics: Annotated[tuple[str, ...], Field(max_length=MAX_TOPICS)] = ()
    """As ``node/output``; empty: every output."""
    rates: bool = False
    window: WindowSeconds = 10.0
    sample_bytes: SampleBytes = 65_536


ControlRequest = Annotated[
    StartDataflow
    | StopDataflow
    | RestartDataflow
    | WaitForEnd
    | ListDataflows
    | ListNodes
    | ForgetEnded
    | ClusterStatus
    | ReadLogs
    | Destroy
    | BuildDataflow
    | CallRunner
    | DescribeDataflow
    | WatchTopics,
    Field(discriminator="kind"),
]

# ------------------------------------------------------------------ answers and progress

DataflowStatus = Literal[
    "Starting", "Running", "Recovering", "Degraded", "Stopping", "Finished", "Failed"
]


class LinkSummary(Message):
    """The link between two machines of one dataflow, as one of them sees it."""

    dataflow: str
    machine: str
    peer: str
    state: PeerState
    reason: str | None = None
    endpoint: str | None = None
    """Of the peer, as ``HOST:PORT``."""
    rtt_us: int | None = None
    clock_offset_us: int | None = None


class RestartSummary(Message):
    """The last restart of a node, or recovery of the nodes of a machine."""

    cause: str
    ago: float
    """Seconds."""
    node: str | None = None
    daemon: str | None = None


class DataflowSummary(Message):
    """One dataflow as ``list`` shows it."""

    uuid: str
    name: str | None = None
    status: DataflowStatus
    reason: str | None = None
    """Why it failed, is degraded or recovers."""
    ended_ago: float | None = None
    """Seconds since it ended."""
    restarts: int = 0
    """Of its nodes, since their part was started last."""
    last_restart: RestartSummary | None = None
    recoveries: int = 0
    """How often all nodes on a machine were started again."""
    last_recovery: RestartSummary | None = None
    nodes: int = 0
    daemons: tuple[str, ...] = ()
    cpu: float = 0.0
    """Per cent of one core."""
    memory: int = 0
    """Bytes."""
    links: tuple[LinkSummary, ...] = ()
    """Between its machines, each seen from both ends."""


class StartTriggered(Message):
    kind: Literal["start_triggered"] = "start_triggered"
    uuid: str
    waits_for: str | None = None
    """What holds up the start; repeated when it changes."""


class Placed(Message):
    """Where one node goes, and why."""

    node: str
    daemon: str
    reason: str


class PlacementPlan(Message):
    kind: Literal["placement"] = "placement"
    nodes: tuple[Placed, ...]


class Started(Message):
    kind: Literal["started"] = "started"
    uuid: str
    warnings: tuple[str, ...] = ()


class EndedDataflow(Message):
    """How one dataflow ended."""

    uuid: str
    name: str | None = None
    ok: bool
    reason: str | None = None
    """Why it failed as a whole (not prepared, machine lost...)."""
    nodes: tuple[NodeResult, ...] = ()
    """First ended first, over all daemons."""


class Ended(Message):
    kind: Literal["ended"] = "ended"
    dataflows: tuple[EndedDataflow, ...] = ()


class Restarted(Message):
    kind: Literal["restarted"] = "restarted"
    old: str
    new: str
    warnings: tuple[str, ...] = ()


class DataflowList(Message):
    kind: Literal["dataflows"] = "dataflows"
    dataflows: tuple[DataflowSummary, ...] = ()


class NodeSummary(Message):
    """One node as ``node list`` and ``top`` show it."""

    node: str
    dataflow: str
    dataflow_name: str | None = None
    daemon: str
    status: NodeView
    pid: int | None = None
    cpu_percent: float | None = None
    memory_bytes: int | None = None
    restarts: int = 0
    read_bytes: int | None = None
    written_bytes: int | None = None
    queued: int = 0
    blocked_on: str | None = None
    broken_inputs: tuple[str, ...] = ()
    error: str | None = None


class NodeList(Message):
    kind: Literal["nodes"] = "nodes"
    nodes: tuple[NodeSummary, ...] = ()


class DaemonSummary(Message):
    """One daemon as ``cluster status`` shows it."""

    daemon: str
    machine_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    address: str = ""
    release: str = ""
    connected: bool = True
    ended: bool = False
    """It ended in good order (and is not connected)."""
    heartbeat_age: float = 0.0
    """Seconds since it was last heard."""
    clock_offset: float | None = None
    """Seconds by which its machine's clock is ahead of the coordinator's."""
    runners: tuple[str, ...] = ()
    """Versions of the runners on that machine, which outlive upgrades of the daemon."""
    restarts: int = 0
    health_kills: int = 0
    input_timeouts: int = 0
    input_recoveries: int = 0
    links: tuple[LinkSummary, ...] = ()
    """Of the dataflows that run there, seen from it."""


class ClusterReport(Message):
    kind: Literal["cluster"] = "cluster"
    coordinator: ProgramVersion
    daemons: tuple[DaemonSummary, ...] = ()
    active_dataflows: int = 0


class LogLines(Message):
    """Lines of the JSONL files as they are, oldest first."""

    kind: Literal["log_lines"] = "log_lines"
    daemon: str
    stream: int
    lines: tuple[str, ...]


class LogsEnd(Message):
    kind: Literal["logs_end"] = "logs_end"
    problems: tuple[str, ...] = ()
    """Daemons that could not be read, and why."""


class Destroyed(Message):
    kind: Literal["destroyed"] = "destroyed"
    dataflows: tuple[EndedDataflow, ...] = ()
    left: tuple[str, ...] = ()
    """Daemons that did not answer: they, or nodes of theirs, may still run."""


class Described(Message):
    """A dataflow as it was started, and the daemon of each node."""

    kind: Literal["described"] = "described"
    uuid: str
    spec: DataflowSpec
    daemons: dict[str, str] = Field(default_factory=dict)


ControlAnswer = Annotated[
    PlacementPlan
    | Started
    | Ended
    | Restarted
    | DataflowList
    | NodeList
    | ClusterReport
    | LogsEnd
    | Destroyed
    | Built
    | RunnerReplies
    | Described
    | TopicsEnd,
    Field(discriminator="kind"),
]
ControlProgress = Annotated[
    StartTriggered | LogLines | BuildTriggered | BuildProgress | WatchedTopics,
    Field(discriminator="kind"),
]

# ---------------------------------------------------------------------------------- frames


class Hello(Message):
    """First frame of a client."""

    kind: Literal["hello"] = "hello"
    party: ProgramVersion


class ClientRequest(Message):
    kind: Literal["ask"] = "ask"
    id: int
    request: ControlRequest


class Cancel(Message):
    """The client no longer wants what ``id`` asked for; nothing is answered, nothing is undone."""

    kind: Literal["cancel"] = "cancel"
    id: int


class StreamAck(Message):
    """The client has shown the last :class:`WatchedTopics` of this stream: it may have the next."""

    kind: Literal["taken"] = "taken"
    id: int
    stream: int


ClientFrame = Annotated[Hello | ClientRequest | Cancel | StreamAck, Field(discriminator="kind")]


class Welcome(Message):
    kind: Literal["welcome"] = "welcome"
    party: ProgramVersion
    max_message_bytes: int


class Refused(Message):
    """The connection is closed after this; ``message`` is a full sentence."""

    kind: Literal["refused"] = "refused"
    message: str


class Progress(Message):
    kind: Literal["progress"] = "progress"
    id: int
    progress: ControlProgress


class Answer(Message):
    kind: Literal["answer"] = "answer"
    id: int
    answer: ControlAnswer


FailureCode = Literal["failed", "not_found", "ambiguous", "conflict", "nothing_runs", "placement"]


class Failure(Message):
    """The request failed; ``message`` says what, where, and what to do."""

    kind: Literal["failure"] = "failure"
    id: int
    message: str
    code: FailureCode = "failed"
    ended: EndedDataflow | None = None
    """For a start that failed on a daemon: what is known of the nodes."""


ServerFrame = Annotated[
    Welcome | Refused | Progress | Answer | Failure, Field(discriminator="kind")
]

CLIENT_CODEC: Final[Codec[ClientFrame]] = Codec(ClientFrame, "coordinator")
SERVER_CODEC: Final[Codec[ServerFrame]] = Codec(ServerFrame, "client")
