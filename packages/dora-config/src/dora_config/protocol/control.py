"""Messages between CLI and coordinator; no I/O.

A request with one answer is the body of `POST /api/request`. Those with progress use a WebSocket:
the client sends :class:`Hello`; the coordinator replies :class:`Welcome` or :class:`Refused`. Each
request then carries a number, which is repeated in any count of :class:`Progress` frames and in one
:class:`Answer` or :class:`Failure`.

A request names a dataflow by UUID or name. Without one it is about the only one that runs, unless
its class describes another choice.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from dora_config.history.evidence import Evidence
from dora_config.history.explanation import Explanation
from dora_config.protocol.builds import BuildDataflow, BuildProgress, BuildTriggered, Built
from dora_config.protocol.calls import NodeRequest, RunnerReplies
from dora_config.protocol.claims import Claim
from dora_config.protocol.dataflow import (
    DataflowSpec,
    LogFilter,
    LogPosition,
    Placed as Placed,
    PlacementPlan as PlacementPlan,
    StartDataflow as StartDataflow,
    Started as Started,
    StartTriggered as StartTriggered,
)
from dora_config.protocol.envelope import Codec, Message, ProgramVersion
from dora_config.protocol.fleet import (
    ApplyFleet,
    CompareFleet,
    FleetComparison,
    FleetHistory,
    FleetReport,
    GetFleet,
    GetFleetHistory,
    PauseFleet,
    RollBackFleet,
)
from dora_config.protocol.recordings import CallRecorders, RecorderReplies
from dora_config.protocol.runner import GraphChange, NodeResult
from dora_config.protocol.snapshot import DaemonSummary, LinkSummary, NodeSummary, Snapshot
from dora_config.protocol.topics import (
    MAX_TOPICS,
    MaxRate,
    PictureBytes,
    SampleBytes,
    TopicsEnd,
    WatchedTopics,
    WholePictureBytes,
    WindowSeconds,
)

# -------------------------------------------------------------------------------- requests


class StopDataflow(Message, kind="stop"):
    """Stop a dataflow and wait for its end; answered with :class:`Ended`."""

    dataflow: str | None = None
    all: bool = False
    grace: float | None = None
    force: bool = False


class RestartDataflow(Message, kind="restart"):
    """Stop a dataflow and start its stored specification; answered with :class:`Restarted`."""

    dataflow: str | None = None
    grace: float | None = None
    force: bool = False


class WaitForEnd(Message, kind="wait"):
    """Wait for the end of a dataflow; answered with :class:`Ended`."""

    dataflow: str | None = None


class ListDataflows(Message, kind="list"):
    """List dataflows; answered with :class:`DataflowList`."""


class ListNodes(Message, kind="nodes"):
    """List nodes, by default of all running dataflows; answered with :class:`NodeList`."""

    dataflow: str | None = None


class ForgetEnded(Message, kind="clean"):
    """Forget ended dataflows; answered with the :class:`DataflowList` of these."""


class ClusterStatus(Message, kind="status"):
    """Get the state of all daemons; answered with :class:`ClusterReport`."""


class GetSnapshot(Message, kind="snapshot"):
    """Get machines, nodes and edges with their counters; answered with :class:`Snapshot`."""

    dataflow: str | None = None
    """``None``: all running dataflows and all machines."""
    edges: bool = True
    """False: without edges and loads of machines; then no daemon is queried."""


class ReadLogs(Message, kind="logs"):
    """Read logs: progress :class:`LogLines`, answered with :class:`LogsEnd` unless ``follow``."""

    dataflow: str | None = None
    nodes: tuple[str, ...] = ()
    """Empty: all nodes."""
    filter: LogFilter = LogFilter()
    follow: bool = False
    after: dict[str, LogPosition] = Field(default_factory=dict)
    """Read only what follows these positions, by node."""
    resumes: bool = False
    """End it when a daemon is lost or returns: the client sends it again with ``after``."""


class Destroy(Message, kind="destroy"):
    """End all daemons and the coordinator; answered with :class:`Destroyed` before it ends."""

    force: bool = False
    """Stop the dataflows that still run instead of refusing."""


class RotateToken(Message, kind="rotate_token"):
    """Replace the cluster's token; answered with :class:`TokenRotated`."""

    grace: float = Field(ge=0, allow_inf_nan=False)
    """Seconds for which the present token stays valid."""


class RemoveMachines(Message, kind="remove_machines"):
    """Forget the keys of machines; answered with :class:`MachinesRemoved`."""

    machines: tuple[str, ...]
    revoke: bool = True
    """Disconnect the machines, end their parts of dataflows, and refuse their keys permanently;
    otherwise the next daemon with the machine id enrols its key, as after a reinstallation.
    """


class Standby(Message):
    """A machine that keeps a copy of the coordinator's state, and can take over."""

    machine: str
    address: str
    """Where the coordinator is then, as HOST:PORT."""


class SetStandbys(Message, kind="set_standbys"):
    """Replace the standbys; answered with :class:`StandbysSet`."""

    address: str
    """Address of this coordinator, as HOST:PORT."""
    standbys: tuple[Standby, ...] = ()


class CallRunner(Message, kind="call_runner"):
    """Forward a request to the runners of a dataflow; answered with :class:`RunnerReplies`."""

    dataflow: str | None = None
    node: str | None = None
    """Send it to the runner of this node; ``None``: to every runner."""
    request: NodeRequest


class ChangeGraph(Message, kind="change_graph"):
    """Change the nodes or edges of a running dataflow; answered with :class:`GraphChanged`."""

    dataflow: str | None = None
    change: GraphChange


class DescribeDataflow(Message, kind="describe"):
    """Get a dataflow's specification; answered with :class:`Described`."""

    dataflow: str | None = None


class Explain(Message, kind="explain"):
    """Explain the state of a dataflow, or why it was not started; answered with
    :class:`Explained`.

    Without a dataflow: the only running dataflow, else the only one in trouble, else the last.
    """

    dataflow: str | None = None
    evidence: bool = False
    """Include all events, states and counters from which the explanation is derived."""


class WatchTopics(Message, kind="watch_topics"):
    """Watch messages of outputs or their rates: progress :class:`WatchedTopics`, answered with
    :class:`TopicsEnd` when the dataflow has ended.
    """

    dataflow: str | None = None
    topics: Annotated[tuple[str, ...], Field(max_length=MAX_TOPICS)] = ()
    """As ``node/output``; empty: every output."""
    rates: bool = False
    window: WindowSeconds = 10.0
    sample_bytes: SampleBytes = 65_536
    max_rate: MaxRate = None
    picture_bytes: PictureBytes = 0
    whole_picture_bytes: WholePictureBytes = 0


Decision = (
    StartDataflow
    | StopDataflow
    | RestartDataflow
    | ForgetEnded
    | Destroy
    | RotateToken
    | RemoveMachines
    | SetStandbys
    | ApplyFleet
    | RollBackFleet
    | PauseFleet
)
"""Requests that change what the coordinator stores."""
ControlRequest = Annotated[
    Decision
    | WaitForEnd
    | ListDataflows
    | ListNodes
    | ClusterStatus
    | GetSnapshot
    | CallRunner
    | DescribeDataflow
    | Explain
    | CallRecorders
    | CompareFleet
    | GetFleet
    | GetFleetHistory
    | ReadLogs
    | WatchTopics
    | BuildDataflow
    | ChangeGraph,
    Field(discriminator="kind"),
]

# ------------------------------------------------------------------ answers and progress

DataflowStatus = Literal[
    "Starting", "Running", "Recovering", "Degraded", "Stopping", "Finished", "Failed"
]


class RestartSummary(Message):
    """Last restart of a node, or last recovery of the nodes of a machine."""

    cause: str
    ago: float
    """Seconds."""
    node: str | None = None
    daemon: str | None = None


class DataflowSummary(Message):
    """One dataflow in the output of ``dora list``."""

    uuid: str
    name: str | None = None
    status: DataflowStatus
    reason: str | None = None
    """Why it failed, is degraded or is recovering."""
    ended_ago: float | None = None
    """Seconds since it ended."""
    restarts: int = 0
    """Restarts of its nodes since their part was last started."""
    last_restart: RestartSummary | None = None
    recoveries: int = 0
    """Number of times that all nodes of a machine were started again."""
    last_recovery: RestartSummary | None = None
    nodes: int = 0
    daemons: tuple[str, ...] = ()
    cpu: float = 0.0
    """Per cent of one core."""
    memory: int = 0
    """Bytes."""
    links: tuple[LinkSummary, ...] = ()
    """Links between its machines; one entry from each end."""


class EndedDataflow(Message):
    """How one dataflow ended."""

    uuid: str
    name: str | None = None
    ok: bool
    reason: str | None = None
    """Why the dataflow failed as a whole (not prepared, machine lost...)."""
    nodes: tuple[NodeResult, ...] = ()
    """In the order in which they ended, over all daemons."""


class Ended(Message, kind="ended"):
    dataflows: tuple[EndedDataflow, ...] = ()


class Restarted(Message, kind="restarted"):
    old: str
    new: str
    warnings: tuple[str, ...] = ()


class DataflowList(Message, kind="dataflows"):
    dataflows: tuple[DataflowSummary, ...] = ()


class NodeList(Message, kind="nodes"):
    nodes: tuple[NodeSummary, ...] = ()


class StandbyReport(Message):
    """A machine that keeps a copy of the coordinator's state."""

    machine: str
    address: str
    """Where the coordinator is if it takes over there."""
    number: int | None = None
    """Number of changes in the copy; None: this coordinator has not sent one yet."""
    age: float | None = None
    """Seconds since the machine confirmed it."""
    current: bool = False
    """Nothing has changed since."""
    problem: str | None = None
    """Why the machine could not keep the last copy."""


class ClusterReport(Message, kind="cluster"):
    """The coordinator, its machines, and the number of dataflows that have not ended."""

    coordinator: ProgramVersion
    machines: tuple[DaemonSummary, ...] = ()
    active_dataflows: int = 0
    differences: tuple[str, ...] = ()
    """What the machines report and the coordinator does not expect, with the command that helps."""
    claim: Claim | None = None
    """That of the answering coordinator."""
    standbys: tuple[StandbyReport, ...] = ()


class LogLines(Message, kind="log_lines"):
    """Unchanged lines of the JSONL files, oldest first."""

    daemon: str
    stream: int
    lines: tuple[str, ...]
    positions: dict[str, LogPosition] = Field(default_factory=dict)
    """Behind the last line of each node that was read so far."""
    reading: tuple[str, ...] = ()
    """Daemons that have not sent all their lines."""


class LogsEnd(Message, kind="logs_end"):
    problems: tuple[str, ...] = ()
    """Daemons whose logs could not be read, with the reason."""


class Destroyed(Message, kind="destroyed"):
    dataflows: tuple[EndedDataflow, ...] = ()
    left: tuple[str, ...] = ()
    """Daemons that did not answer; they and their nodes may still be running."""


class MachinesRemoved(Message, kind="machines_removed"):
    """The coordinator removed the keys of these machines."""

    machines: tuple[str, ...] = ()


class StandbysSet(Message, kind="standbys_set"):
    pass


class TokenRotated(Message, kind="token_rotated"):
    token: str
    daemons: tuple[str, ...] = ()
    """Daemons to which the new token was sent; others receive it when they connect."""


class Explained(Message, kind="explained"):
    explanation: Explanation
    evidence: Evidence | None = None
    """What it was derived from, if requested."""


class GraphChanged(Message, kind="graph_changed"):
    """The change took place on ``daemon``."""

    uuid: str
    daemon: str


class Described(Message, kind="described"):
    """A dataflow as it was started, and the daemon of each node."""

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
    | Snapshot
    | LogsEnd
    | Destroyed
    | TokenRotated
    | MachinesRemoved
    | StandbysSet
    | Built
    | RunnerReplies
    | GraphChanged
    | Described
    | Explained
    | TopicsEnd
    | RecorderReplies
    | FleetComparison
    | FleetReport
    | FleetHistory,
    Field(discriminator="kind"),
]
ControlProgress = Annotated[
    StartTriggered | LogLines | BuildTriggered | BuildProgress | WatchedTopics,
    Field(discriminator="kind"),
]

# ---------------------------------------------------------------------------------- frames


class Hello(Message, kind="hello"):
    """First frame of a client."""

    party: ProgramVersion


class ClientRequest(Message, kind="request"):
    id: int
    request: ControlRequest


class Cancel(Message, kind="cancel"):
    """Cancel the request ``id``; not answered, and nothing is undone."""

    id: int


class StreamAck(Message, kind="stream_ack"):
    """Acknowledge the last :class:`WatchedTopics` of a stream, so that the next may be sent."""

    id: int
    stream: int


ClientFrame = Annotated[Hello | ClientRequest | Cancel | StreamAck, Field(discriminator="kind")]


class Welcome(Message, kind="welcome"):
    party: ProgramVersion
    max_message_bytes: int


class Refused(Message, kind="refused"):
    """Refuse the connection, which is then closed; ``message`` is a full sentence."""

    message: str


class Progress(Message, kind="progress"):
    id: int
    progress: ControlProgress


class Answer(Message, kind="answer"):
    id: int
    answer: ControlAnswer


FailureCode = Literal["failed", "not_found", "ambiguous", "conflict", "nothing_runs", "placement"]


class Failure(Message, kind="failure"):
    """The request failed; ``message`` contains what failed, where, and the remedy."""

    id: int
    message: str
    code: FailureCode = "failed"
    ended: EndedDataflow | None = None
    """Known results of the nodes, for a start that failed on a daemon."""


ServerFrame = Annotated[
    Welcome | Refused | Progress | Answer | Failure, Field(discriminator="kind")
]

REQUEST_CODEC: Final[Codec[ControlRequest]] = Codec(ControlRequest, "coordinator")
ANSWER_CODEC: Final[Codec[ControlAnswer]] = Codec(ControlAnswer, "client")
"""Bodies of `POST /api/request`."""
CLIENT_CODEC: Final[Codec[ClientFrame]] = Codec(ClientFrame, "coordinator")
SERVER_CODEC: Final[Codec[ServerFrame]] = Codec(ServerFrame, "client")
