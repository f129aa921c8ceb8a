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
from dora_config.protocol.dataflow import (
    DataflowSpec,
    LogPosition,
    LogSelection,
    Placed as Placed,
    PlacementPlan as PlacementPlan,
    PlanDataflow as PlanDataflow,
    ReplaceDataflow as ReplaceDataflow,
    StartDataflow as StartDataflow,
    Started as Started,
    StartTriggered as StartTriggered,
)
from dora_config.protocol.envelope import (
    Codec,
    FollowedRequest,
    Message,
    ProgramVersion,
    Query,
    Request,
)
from dora_config.protocol.fleet import (
    ApplyFleet,
    Checked,
    CheckMachine,
    CompareFleet,
    FleetComparison,
    FleetHistory,
    GetFleetHistory,
    PauseFleet,
    RollBackFleet,
)
from dora_config.protocol.recordings import CallRecorders, RecorderReplies
from dora_config.protocol.reports import (
    ClusterReport as ClusterReport,
    ClusterStatus as ClusterStatus,
    DataflowList as DataflowList,
    DataflowStatus as DataflowStatus,
    DataflowSummary as DataflowSummary,
    Ended as Ended,
    EndedDataflow as EndedDataflow,
    FleetReport,
    ForgetEnded as ForgetEnded,
    GetFleet,
    ListDataflows as ListDataflows,
    ListNodes as ListNodes,
    NodeList as NodeList,
    RestartDataflow as RestartDataflow,
    Restarted as Restarted,
    RestartSummary as RestartSummary,
    StandbyReport as StandbyReport,
    StopDataflow as StopDataflow,
)
from dora_config.protocol.runner import GraphChange
from dora_config.protocol.snapshot import Snapshot
from dora_config.protocol.topics import TopicSelection, TopicsEnd, WatchedTopics

# ------------------------------------------------------------------ answers and progress


class LogLines(Message, kind="log_lines"):
    """Unchanged lines of the JSONL files, oldest first."""

    daemon: str
    stream: int
    lines: tuple[str, ...]
    positions: dict[str, LogPosition] = Field(default_factory=dict)
    """Position behind the last line of each node that was read so far."""
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
    """Evidence for the explanation, if requested."""


class GraphChanged(Message, kind="graph_changed"):
    """The change took place on ``daemon``."""

    uuid: str
    daemon: str


class Described(Message, kind="described"):
    """A dataflow as it was started, and the daemon of each node."""

    uuid: str
    spec: DataflowSpec
    daemons: dict[str, str] = Field(default_factory=dict)


# -------------------------------------------------------------------------------- requests


class WaitForEnd(Message, Request[Ended], kind="wait"):
    """Wait for the end of a dataflow."""

    dataflow: str | None = None


class GetSnapshot(Message, Query[Snapshot], kind="snapshot"):
    """Get machines, nodes and edges with their counters."""

    dataflow: str | None = None
    """``None``: all running dataflows and all machines."""
    edges: bool = True
    """False: without edges and loads of machines; then no daemon is queried."""


class ReadLogs(LogSelection, FollowedRequest[LogsEnd, LogLines], kind="logs"):
    """Read logs; not answered with ``follow``."""

    dataflow: str | None = None
    resumes: bool = False
    """End it when a daemon is lost or returns: the client sends it again with ``after``."""


class Destroy(Message, Request[Destroyed], kind="destroy"):
    """End all daemons and the coordinator; answered before it ends."""

    force: bool = False
    """Stop the dataflows that still run instead of refusing."""


class RotateToken(Message, Request[TokenRotated], kind="rotate_token"):
    """Replace the cluster's token."""

    grace: float = Field(ge=0, allow_inf_nan=False)
    """Seconds for which the present token stays valid."""


class RemoveMachines(Message, Request[MachinesRemoved], kind="remove_machines"):
    """Forget the keys of machines."""

    machines: tuple[str, ...]
    revoke: bool = True
    """Disconnect the machines, end their parts of dataflows, and refuse their keys permanently;
    otherwise the next daemon with the machine id enrols its key, as after a reinstallation.
    """


class Standby(Message):
    """A machine that keeps a copy of the coordinator's state, and can take over."""

    machine: str
    address: str
    """Address of the coordinator once the standby has taken over, as HOST:PORT."""


class SetStandbys(Message, Request[StandbysSet], kind="set_standbys"):
    """Replace the standbys."""

    address: str
    """Address of this coordinator, as HOST:PORT."""
    standbys: tuple[Standby, ...] = ()


class CallRunner(Message, Request[RunnerReplies], kind="call_runner"):
    """Forward a request to the runners of a dataflow."""

    dataflow: str | None = None
    node: str | None = None
    """Send it to the runner of this node; ``None``: to every runner."""
    request: NodeRequest


class ChangeGraph(Message, Request[GraphChanged], kind="change_graph"):
    """Change the nodes or edges of a running dataflow."""

    dataflow: str | None = None
    change: GraphChange


class DescribeDataflow(Message, Query[Described], kind="describe"):
    """Get a dataflow's specification."""

    dataflow: str | None = None


class Explain(Message, Query[Explained], kind="explain"):
    """Explain the state of a dataflow, or why it was not started.

    Without a dataflow: the only running dataflow, else the only one in trouble, else the last.
    """

    dataflow: str | None = None
    evidence: bool = False
    """Include all events, states and counters from which the explanation is derived."""


class WatchTopics(TopicSelection, FollowedRequest[TopicsEnd, WatchedTopics], kind="watch_topics"):
    """Watch messages of outputs or their rates; answered when the dataflow has ended."""

    dataflow: str | None = None


Decision = (
    StartDataflow
    | PlanDataflow
    | StopDataflow
    | RestartDataflow
    | ReplaceDataflow
    | ForgetEnded
    | Destroy
    | RotateToken
    | RemoveMachines
    | SetStandbys
    | ApplyFleet
    | RollBackFleet
    | PauseFleet
)
"""Requests that change the coordinator's store, and `PlanDataflow`, which checks a start."""
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
    | CheckMachine
    | ReadLogs
    | WatchTopics
    | BuildDataflow
    | ChangeGraph,
    Field(discriminator="kind"),
]
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
    | FleetHistory
    | Checked,
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
