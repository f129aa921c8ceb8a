"""Messages between coordinator and daemon; no I/O.

A *part* is the nodes of one dataflow on one daemon. ``attempt`` counts its spawns: recovery
increments it, and messages about older attempts are ignored. Every report of a daemon may be
repeated; :class:`Register` contains its complete state.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from dora_config.dataflow.resolved import DATAFLOW_FORMAT
from dora_config.frozen import Quantity
from dora_config.ids import parse_label, parse_machine_id
from dora_config.protocol.builds import (
    BuildEnded,
    BuildEvents,
    BuildEventsAck,
    BuildPart,
    CancelBuild,
)
from dora_config.protocol.calls import ChangePart, LinkPart, PartLinks, RunnerCall
from dora_config.protocol.claims import Claim, Signature
from dora_config.protocol.code import Digest
from dora_config.protocol.dataflow import (
    DataflowSpec,
    LogPosition,
    LogSelection,
    StartIdentity,
    WholeDataflow,
)
from dora_config.protocol.envelope import Codec, DataflowUuid, Message, ProgramVersion
from dora_config.protocol.links import LINK_VERSION, LinkReport, PeerEndpoint
from dora_config.protocol.recordings import RecorderReply, RecorderRequest
from dora_config.protocol.runner import DataflowResult, NodeStatus, RunnerHistory, RunnerReply
from dora_config.protocol.snapshot import MachineSample, SampleMachine
from dora_config.protocol.topics import StreamTopics, TopicChunk

HEARTBEAT_INTERVAL: Final = 3.0
"""Seconds between heartbeats, unless :class:`Registered` contains another value."""

COORDINATOR_SILENCE: Final = 20.0
"""Seconds without a message after which a daemon reconnects."""

PartPhase = Literal["preparing", "prepared", "running", "stopping", "lost", "ended"]
"""``lost``: no process of the part runs, until the coordinator, or the machine alone, starts it."""

# ------------------------------------------------------------------- daemon -> coordinator


class PartReport(Message):
    """State of one part on this daemon."""

    dataflow_id: DataflowUuid
    attempt: int
    phase: PartPhase
    result: DataflowResult | None = None
    """Set when ``phase`` is ``ended``."""
    link: LinkReport | None = None
    """State of its link to parts on other machines, once known."""
    stopped: bool = False
    """A stop was requested, by the coordinator or by a signal to the daemon."""
    only_virtual_left: bool = False
    """The remaining nodes read only logs, or with ``exit_when_nodes_finish`` timers and logs."""
    revision: int = 0
    """Number of changes of the part's nodes; the coordinator requests a description if it has
    another."""
    problem: str | None = None
    """Why the daemon cannot control its nodes, which run on, and the remedy."""
    name: str | None = None
    """Name of the dataflow."""
    begun: StartIdentity = StartIdentity()
    changes: int = 0
    """Value in the machine's :class:`WholeDataflow`."""


class Register(Message, kind="register"):
    """First frame of a daemon: identity and parts; answered with :class:`Registered` or
    :class:`RegistrationRefused`.
    """

    party: ProgramVersion
    instance: str
    """Id from the daemon's state directory; survives restarts and differs on a copied disk."""
    incarnation: str
    """New at each start of the daemon process."""
    machine_id: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    host: str = ""
    boot_id: str = ""
    plain_links: bool = False
    """Whether links of the machine are not encrypted (`links: plain`)."""
    parts: tuple[PartReport, ...] = ()
    stored_ends: tuple[PartReport, ...] = ()
    """Parts whose end a coordinator has stored, for one that has taken over with an older copy."""
    public_key: str
    """Identity of the machine (DER, base64), proved in the answer to :class:`Challenge`."""
    link_version: tuple[int, int] = LINK_VERSION
    """Version of the protocol of the links that it starts."""
    dataflow_format: tuple[int, int] = DATAFLOW_FORMAT
    """Newest format of dataflows that the daemon reads; it reads earlier ones, too."""

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


class Coordinators(Message, kind="coordinators"):
    """The coordinator of the connection, and the addresses to which a daemon reconnects; sent again
    when they change.
    """

    claim: Claim
    standbys: tuple[str, ...] = ()
    """Addresses at which a coordinator that takes over can be."""


class IdentityProof(Message, kind="identity_proof"):
    """Answer to :class:`Challenge`, before :class:`Registered`."""

    signature: str
    """Signature of `challenge_text` with the machine's key (base64)."""
    claim: Claim | None = None
    """Claim of the highest rank of this cluster that the daemon has seen."""


class CopyKept(Message, kind="copy_kept"):
    """Answer to :class:`CoordinatorCopy`."""

    epoch: int
    number: int
    problem: str | None = None
    """Why the copy is not on the disk."""


class CodeFound(Message, kind="code_found"):
    """Answer to :class:`SendCode`."""

    digests: tuple[Digest, ...] = ()
    """Files on this machine, which were uploaded if that was requested."""
    problem: str | None = None
    """Why others were not uploaded."""


class Metrics(Message):
    """Latest sample of the nodes of one part."""

    dataflow_id: DataflowUuid
    nodes: tuple[NodeStatus, ...] = ()
    link: LinkReport | None = None
    """Report of the link, with the latest round trip times."""
    version: str = ""
    """Version of the runner."""


class Heartbeat(Message, kind="heartbeat"):
    """Sent each :data:`HEARTBEAT_INTERVAL`; answered with :class:`HeartbeatAck`."""

    metrics: tuple[Metrics, ...] = ()
    parts: tuple[PartReport, ...] = ()
    """All parts, as in :class:`Register`, which corrects missed reports."""
    time: Quantity | None = None
    """Unix time of the daemon's machine, whose clock may be wrong."""
    monotonic_ns: int | None = None
    """CLOCK_MONOTONIC of the daemon's machine."""


class PartChanged(Message, kind="part_changed"):
    """A part entered another phase."""

    report: PartReport


class PartLost(Message, kind="part_lost"):
    """A part was lost or could not be prepared; no process of it runs on this machine."""

    dataflow_id: DataflowUuid
    attempt: int
    reason: str
    node: str | None = None
    result: DataflowResult | None = None


class PartDescribed(Message, kind="part_described"):
    """Answer to :class:`DescribePart`; also sent after the nodes of a part were changed."""

    dataflow_id: DataflowUuid
    attempt: int
    spec: DataflowSpec
    revision: int = 0
    lost: bool = False
    """Whether no process of the part runs."""
    whole: WholeDataflow = WholeDataflow()


class SignRequest(Message, kind="sign_request"):
    """Request a certificate for the daemon's links; answered with :class:`Certificate`."""

    request: str
    """Certificate signing request (PEM); only its public key is used."""


class LogChunk(Message, kind="log_chunk"):
    """Lines for :class:`StreamLogs`; the next chunk is sent after :class:`ReadOn`."""

    stream: int
    lines: tuple[str, ...] = ()
    positions: dict[str, LogPosition] = Field(default_factory=dict)
    """Position behind the last line of each node that was read so far."""
    done: bool = False
    problem: str | None = None
    missing: tuple[str, ...] | None = None
    """Requested nodes without a log here, if ``done``; None: not determined."""


class PartHistory(Message, kind="part_history"):
    """Answer to :class:`ReadHistory`."""

    history: RunnerHistory = RunnerHistory()
    """Events of the part; its nodes and edges are empty once the part has ended."""
    folder: str = ""
    """Folder of the logs and the event history."""
    free_bytes: int | None = None
    """Space on the disk of that folder."""
    problem: str | None = None
    """Why events are missing, as a sentence."""


DaemonReply = Annotated[
    RunnerReply | RecorderReply | PartHistory | MachineSample | CodeFound,
    Field(discriminator="kind"),
]


class DaemonAnswered(Message, kind="answered"):
    """Answer to :class:`DaemonCall`, with either a reply or a problem."""

    call: str
    reply: DaemonReply | None = None
    problem: str | None = None
    """Why the request has failed, as a full sentence."""


class DaemonLeaving(Message, kind="leaving"):
    """The daemon ends; with ``hand_over`` its nodes keep running for the next daemon."""

    hand_over: bool


DaemonMessage = Annotated[
    Register
    | Heartbeat
    | PartChanged
    | PartLost
    | PartDescribed
    | SignRequest
    | LogChunk
    | DaemonAnswered
    | DaemonLeaving
    | IdentityProof
    | CopyKept
    | BuildEvents
    | BuildEnded
    | TopicChunk,
    Field(discriminator="kind"),
]

# ------------------------------------------------------------------- coordinator -> daemon


class CoordinatorCopy(Message, kind="coordinator_copy"):
    """State of the coordinator, to be kept by the machine; answered with :class:`CopyKept`."""

    authority: str
    """SHA-256 of the authority's certificate, in hexadecimal digits."""
    epoch: int
    machine: str = ""
    """Machine of the coordinator's :class:`Claim`."""
    number: int
    """Number of changes in the coordinator's store."""
    sealed: str = ""
    """The encrypted state (base64)."""
    proof: Signature = Signature()
    """Signature of `text` by the authority."""

    @property
    def head(self) -> bytes:
        """Fields of the copy that are not encrypted."""
        return f"{self.authority} {self.epoch} {self.machine} {self.number}".encode()

    @property
    def text(self) -> bytes:
        """Bytes that are signed."""
        digest = sha256(self.sealed.encode()).hexdigest()
        return b"dora coordinator copy\n" + self.head + f" {digest}".encode()


class SendCode(Message, kind="send_code"):
    """Look for files of code that the coordinator lacks; answered with :class:`CodeFound`."""

    digests: tuple[Digest, ...]
    upload: bool = False
    """Upload the files that are found, too, to their paths below `FILES_PATH`."""


class Registered(Message, kind="registered"):
    party: ProgramVersion
    daemon: str
    """Key of this daemon in the coordinator."""
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    silence_limit: float = COORDINATOR_SILENCE
    authority: str = ""
    """SHA-256 of the certificate that links trust, in hexadecimal digits; changes when the
    coordinator creates a new authority.
    """
    certificate_name: str
    """Common name of the certificate that this daemon may request."""
    coordinators: Coordinators


class RegistrationRefused(Message, kind="registration_refused"):
    message: str
    permanent: bool = False
    """Another attempt would be refused too, as with an incompatible version."""
    claim: Claim | None = None
    """Claim of the coordinator that has taken over."""


class Challenge(Message, kind="challenge"):
    """First answer to a :class:`Register`; answered with :class:`IdentityProof`."""

    nonce: str
    authority: str
    """SHA-256 of the authority's certificate, in hexadecimal digits."""


class HeartbeatAck(Message, kind="heartbeat_ack"):
    monotonic_ns: int | None = None
    """Time in the heartbeat."""
    coordinator_ns: int | None = None
    """Unix time of the coordinator when it answered; never steps back while it runs."""


class PreparePart(Message, kind="prepare_part"):
    """Spawn nodes and hold them at the start barrier."""

    dataflow_id: DataflowUuid
    attempt: int
    spec: DataflowSpec
    """Contains only the nodes of this part."""
    machine: str = ""
    """Key of this daemon, as used in ``links``."""
    recovers: str | None = None
    """Why the part is started again; ``None`` at the first start."""
    links: PartLinks = PartLinks()
    revision: int = 0
    """Number of changes of the nodes before this start."""
    whole: WholeDataflow = WholeDataflow()


class ConnectPart(Message, kind="connect_part"):
    """Add or change endpoints of a part's peers; idempotent."""

    dataflow_id: DataflowUuid
    attempt: int
    peers: tuple[PeerEndpoint, ...] = ()
    ended: tuple[str, ...] = ()
    """Machines whose part has ended."""


class Certificate(Message, kind="certificate"):
    """Certificate of the daemon's links, and the authority they trust; both PEM."""

    certificate: str
    authority: str


class NewToken(Message, kind="new_token"):
    """Token of the cluster, to be used from now on; sent on verified connections only."""

    token: str


class ReleasePart(Message, kind="release_part"):
    """Open the start barrier; idempotent."""

    dataflow_id: DataflowUuid
    attempt: int


class StopPart(Message, kind="stop_part"):
    """Stop the nodes of any attempt; answered with :class:`PartLost` for an unknown part."""

    dataflow_id: DataflowUuid
    grace: float | None = None
    force: bool = False
    reason: str = "stop requested"


class ForgetPart(Message, kind="forget_part"):
    """The end of a part is stored: the daemon stops reporting it, but keeps its logs."""

    dataflow_id: DataflowUuid
    attempt: int


class DescribePart(Message, kind="describe_part"):
    """Request the specification of a part that the coordinator does not have."""

    dataflow_id: DataflowUuid


class ReadHistory(Message, kind="read_history"):
    """Read the events of a part; answered with :class:`PartHistory`."""

    dataflow_id: DataflowUuid


DaemonRequest = Annotated[
    RunnerCall | RecorderRequest | ChangePart | ReadHistory | SampleMachine | SendCode,
    Field(discriminator="kind"),
]


class DaemonCall(Message, kind="call"):
    """A request with one reply; answered with :class:`DaemonAnswered`."""

    call: str
    """Repeated in the answer."""
    request: DaemonRequest


class StreamLogs(LogSelection, kind="stream_logs"):
    """Read log files; answered with :class:`LogChunk` frames."""

    stream: int
    dataflow_id: DataflowUuid


class ReadOn(Message, kind="read_on"):
    """Acknowledge the last chunk of logs or outputs, so that the next may be sent."""

    stream: int


class EndStream(Message, kind="end_stream"):
    """End a stream of logs or outputs."""

    stream: int


class EndDaemon(Message, kind="end_daemon"):
    """Stop all dataflows and end the daemon process (``dora down``)."""


CoordinatorMessage = Annotated[
    Registered
    | RegistrationRefused
    | HeartbeatAck
    | Challenge
    | PreparePart
    | ConnectPart
    | Certificate
    | NewToken
    | ReleasePart
    | StopPart
    | ForgetPart
    | DescribePart
    | DaemonCall
    | StreamLogs
    | ReadOn
    | EndStream
    | EndDaemon
    | Coordinators
    | CoordinatorCopy
    | BuildPart
    | CancelBuild
    | BuildEventsAck
    | LinkPart
    | StreamTopics,
    Field(discriminator="kind"),
]

TO_COORDINATOR: Final[Codec[DaemonMessage]] = Codec(DaemonMessage, "coordinator")
TO_DAEMON: Final[Codec[CoordinatorMessage]] = Codec(CoordinatorMessage, "daemon")
