"""Coordinator <-> daemon: registration, heartbeats, parts of dataflows, logs; does no I/O.

A *part* is the nodes of one dataflow on one daemon. ``attempt`` numbers its spawns: it grows when
recovery spawns a part again, and what is said about an older attempt is ignored. Everything a
daemon tells about its parts can be said again after a loss of the connection: registering repeats
the whole truth.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from dora_config.ids import parse_label, parse_machine_id
from dora_config.protocol.builds import (
    BuildEnded,
    BuildEvents,
    BuildEventsAck,
    BuildPart,
    CancelBuild,
)
from dora_config.protocol.calls import RunnerAnswered, RunnerCall
from dora_config.protocol.dataflow import DataflowSpec, DataflowUuid, LogFilter
from dora_config.protocol.envelope import Codec, Message, ProgramVersion
from dora_config.protocol.links import LinkReport, PeerEndpoint, RemoteEdge
from dora_config.protocol.runner import DataflowResult, NodeStatus
from dora_config.protocol.topics import EndTopics, MoreTopics, StreamTopics, TopicChunk

HEARTBEAT_INTERVAL: Final = 3.0
"""Seconds between the heartbeats of a daemon, unless the coordinator says otherwise."""

COORDINATOR_SILENCE: Final = 20.0
"""Seconds after which a daemon gives up on a silent connection and makes a new one."""

PartPhase = Literal["preparing", "prepared", "running", "stopping", "ended"]

# ------------------------------------------------------------------- daemon -> coordinator


class PartReport(Message):
    """Where one part stands on this daemon."""

    dataflow_id: DataflowUuid
    attempt: int
    phase: PartPhase
    result: DataflowResult | None = None
    """Set when ``phase`` is ``ended``."""
    link: LinkReport | None = None
    """How it is connected to parts on other machines, once something is known of that."""
    stopped: bool = False
    """It was asked to end: by the coordinator, or since its daemon was told to end (a signal)."""
    only_virtual_left: bool = False
    """Of ``exit_when_nodes_finish``: its nodes that are left wait for timers or logs alone."""


class Register(Message):
    """First frame of a daemon: who it is and which parts it has; answered with Registered or
    refused.
    """

    kind: Literal["register"] = "register"
    party: ProgramVersion
    instance: str
    """From the daemon's state directory: the same after a restart, another on a copied disk's
    second life.
    """
    incarnation: str
    """New at each start of the daemon process."""
    machine_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    host: str = ""
    boot_id: str = ""
    parts: tuple[PartReport, ...] = ()

    @field_validator("machine_id")
    @classmethod
    def _valid_machine_id(cls, value: str | None) -> str | None:
        return None if value is None else parse_machine_id(value)

    @field_validator("labels")
    @classmethod
    def _valid_labels(cls, value: dict[str, str]) -> dict[str, str]:
        return {
            parse_label(key, "label key"): parse_label(text, f"value of label {key!r}")
            for key, text in value.items()
        }


class Metrics(Message):
    """The nodes of one part as sampled last."""

    dataflow_id: DataflowUuid
    nodes: tuple[NodeStatus, ...] = ()
    link: LinkReport | None = None
    """With the newest round trips."""
    version: str = ""
    """Of the runner."""


class Heartbeat(Message):
    """Each :data:`HEARTBEAT_INTERVAL`; metrics ride on it. Answered with :class:`HeartbeatAck`."""

    kind: Literal["heartbeat"] = "heartbeat"
    metrics: tuple[Metrics, ...] = ()
    time: float | None = None
    """Unix time on the daemon's machine, whose clock may be wrong."""


class PartChanged(Message):
    """A part reached another phase."""

    kind: Literal["part_changed"] = "part_changed"
    report: PartReport


class PartLost(Message):
    """The part is gone, or could not be made; nothing of it is left on this machine."""

    kind: Literal["part_lost"] = "part_lost"
    dataflow_id: DataflowUuid
    attempt: int
    reason: str
    node: str | None = None
    result: DataflowResult | None = None


class PartDescribed(Message):
    """Answer to :class:`DescribePart`."""

    kind: Literal["part_described"] = "part_described"
    dataflow_id: DataflowUuid
    attempt: int
    spec: DataflowSpec


class SignRequest(Message):
    """The daemon wants a certificate for its links; answered with :class:`Certificate`."""

    kind: Literal["sign_request"] = "sign_request"
    request: str
    """A certificate signing request, PEM; nothing but its public key is taken from it."""


class LogChunk(Message):
    """Answer to :class:`StreamLogs`; the next one is sent after :class:`MoreLogs`."""

    kind: Literal["log_chunk"] = "log_chunk"
    stream: int
    lines: tuple[str, ...] = ()
    done: bool = False
    problem: str | None = None


class Leaving(Message):
    """The daemon ends; ``hand_over``: its nodes live on and the next daemon adopts them."""

    kind: Literal["leaving"] = "leaving"
    hand_over: bool


DaemonMessage = Annotated[
    Register
    | Heartbeat
    | PartChanged
    | PartLost
    | PartDescribed
    | SignRequest
    | LogChunk
    | Leaving
    | BuildEvents
    | BuildEnded
    | RunnerAnswered
    | TopicChunk,
    Field(discriminator="kind"),
]

# ------------------------------------------------------------------- coordinator -> daemon


class Registered(Message):
    kind: Literal["registered"] = "registered"
    party: ProgramVersion
    daemon: str
    """The key under which the coordinator knows this daemon."""
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    silence_limit: float = COORDINATOR_SILENCE
    authority: str = ""
    """SHA-256 of the certificate that links trust, in hexadecimal digits; another one than before
    when the coordinator had to make a new authority.
    """


class RegistrationRefused(Message):
    kind: Literal["registration_refused"] = "registration_refused"
    message: str
    permanent: bool = False
    """Trying again cannot help (wrong version)."""


class HeartbeatAck(Message):
    kind: Literal["heartbeat_seen"] = "heartbeat_seen"


class PreparePart(Message):
    """Spawn the nodes and hold them at the start barrier."""

    kind: Literal["prepare_part"] = "prepare_part"
    dataflow_id: DataflowUuid
    attempt: int
    spec: DataflowSpec
    """With only the nodes of this part."""
    machine: str = ""
    """This daemon's key, as it stands in ``edges``."""
    recovers: str | None = None
    """Why it is started again; None: for the first time."""
    whole: bool = True
    """The dataflow has no other parts."""
    edges: tuple[RemoteEdge, ...] = ()
    """Those that leave or enter this machine; none: the part has no link."""
    addresses: dict[str, str] = Field(default_factory=dict)
    """Where the daemons at the other ends connected from, as the coordinator sees it (IP by key):
    tells which of its own addresses leads to them.
    """


class ConnectPart(Message):
    """Where peers of a part listen: those that are new or have moved, the others stay. Repeating it
    does no harm.
    """

    kind: Literal["connect_part"] = "connect_part"
    dataflow_id: DataflowUuid
    attempt: int
    peers: tuple[PeerEndpoint, ...] = ()
    ended: tuple[str, ...] = ()
    """Machines whose part has ended for good."""


class Certificate(Message):
    """What the daemon's links prove themselves with, and whom they trust; both PEM."""

    kind: Literal["certificate"] = "certificate"
    certificate: str
    authority: str


class ReleasePart(Message):
    """Open the barrier. Repeating it does no harm."""

    kind: Literal["release_part"] = "release_part"
    dataflow_id: DataflowUuid
    attempt: int


class StopPart(Message):
    """Stop the nodes, whatever the attempt; a part that is not there is answered with PartLost."""

    kind: Literal["stop_part"] = "stop_part"
    dataflow_id: DataflowUuid
    grace: float | None = None
    force: bool = False
    reason: str = "stop requested"


class ForgetPart(Message):
    """The end of this part is stored: the daemon need not report it again (its logs stay)."""

    kind: Literal["forget_part"] = "forget_part"
    dataflow_id: DataflowUuid
    attempt: int


class DescribePart(Message):
    """The coordinator does not know this part: say what it is."""

    kind: Literal["describe_part"] = "describe_part"
    dataflow_id: DataflowUuid


class StreamLogs(Message):
    """Read log files; answered with :class:`LogChunk` frames of that stream."""

    kind: Literal["stream_logs"] = "stream_logs"
    stream: int
    dataflow_id: DataflowUuid
    nodes: tuple[str, ...] = ()
    filter: LogFilter = LogFilter()
    follow: bool = False


class MoreLogs(Message):
    """The reader took the last chunk."""

    kind: Literal["more_logs"] = "more_logs"
    stream: int


class EndLogs(Message):
    kind: Literal["end_logs"] = "end_logs"
    stream: int


class EndDaemon(Message):
    """Stop everything and end the daemon process (``dora down``)."""

    kind: Literal["end_daemon"] = "end_daemon"


CoordinatorMessage = Annotated[
    Registered
    | RegistrationRefused
    | HeartbeatAck
    | PreparePart
    | ConnectPart
    | Certificate
    | ReleasePart
    | StopPart
    | ForgetPart
    | DescribePart
    | StreamLogs
    | MoreLogs
    | EndLogs
    | EndDaemon
    | BuildPart
    | CancelBuild
    | BuildEventsAck
    | RunnerCall
    | StreamTopics
    | MoreTopics
    | EndTopics,
    Field(discriminator="kind"),
]

TO_COORDINATOR: Final[Codec[DaemonMessage]] = Codec(DaemonMessage, "coordinator")
TO_DAEMON: Final[Codec[CoordinatorMessage]] = Codec(CoordinatorMessage, "daemon")
