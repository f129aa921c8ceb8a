"""Messages between a runner and its link process: one JSON object a line.

The runner starts ``python -m dora_daemon.link PATH INCARNATION FD``. PATH is its node socket, on
which the link connects as the node :data:`LINK_NODE` and receives queues and routes like any node.
FD is one end of a Unix stream socketpair that the link inherits; end-of-file on it ends the link.

The order on that socketpair:

    runner                                   link
    Configure                        ->
                                     <-      Listening (or Failed, and the link exits with code 1)
    SetOutgoing, SetIncoming, SetPeers ->    each whenever it changes, always the full list
                                     <-      PeerChanged, SourceEvent, StreamCounts, Note
    Finish                           ->      local nodes will send nothing more
                                     <-      Finished, and the link exits with code 0

Both have the same version, so another message is a fault, and ends the link.

A list may name a queue whose descriptors have not arrived over the node socket yet: the stream
begins once both are there.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from dora_config.dataflow.compression import Compression
from dora_config.frozen import Frozen
from dora_config.protocol.links import PeerEndpoint, PeerReport

VERSION: Final = 1
"""Version of the messages between runner and link."""
MAX_LINE: Final = 16 * 1024 * 1024
"""Largest message in bytes."""


# ------------------------------------------------------------------------------ runner to link


class Configure(Frozen, kind="configure"):
    """First message: identity, addresses and credentials of the link."""

    version: int = VERSION
    """Version of this protocol; a link of another version refuses to run."""
    dataflow_id: str
    name: str = ""
    """Name of the dataflow; empty if it has none."""
    network: str
    """Separates clusters that share an address space; part of every key."""
    machine: str
    """Key of this daemon at the coordinator."""
    run_id: str
    """Run of the dataflow's part: changes with every spawn, not with a restart of the link."""
    listen_host: str
    first_port: int
    last_port: int
    port: int | None = None
    """Port of this part's previous link: tried first, so that peers find it again."""
    credentials: str | None
    """Folder with ca.pem, cert.pem, key.pem, read again at every connection. ``None``: no TLS,
    refused except on loopback, for tests, and with ``plain``."""
    plain: bool = False
    """`links: plain`: the network is encrypted already."""
    names: dict[str, str] = Field(default_factory=dict)
    """Peers known so far, and the common names in their certificates (see `PeerEndpoint`)."""
    window_bytes: int = 32 * 1024 * 1024
    """Bytes that a stream may have in flight; at least one message."""
    window_messages: int = 256


class SetPeers(Frozen, kind="set_peers"):
    """All links that this one exchanges messages with.

    A peer with another run_id runs another part: messages that the old one had not acknowledged go
    to the new one. A peer that is missing has ended and does not restart: messages for it are
    dropped, and its streams are closed.
    """

    peers: tuple[PeerEndpoint, ...]


class Outgoing(Frozen):
    """A stream from a queue of LINK_NODE to a machine."""

    machine: str
    """The consumers' machine."""
    node: str
    output: str
    queue: int
    """Number of the queue (`QueueSpec.queue`) that the link consumes."""
    compress: Compression | None = None


class SetOutgoing(Frozen, kind="set_outgoing"):
    """All streams that leave this machine."""

    streams: tuple[Outgoing, ...]


class IncomingStream(Frozen):
    """A stream from a machine into local queues."""

    machine: str
    """The source's machine."""
    node: str
    output: str
    queues: tuple[int, ...] = ()
    """Numbers of the local consumers' queues; their `AddRoute.output` is ``{node}/{output}``.
    Empty: the sending side is informed, and its producer does not wait."""


class SetIncoming(Frozen, kind="set_incoming"):
    """All streams that enter this machine."""

    streams: tuple[IncomingStream, ...]


class Finish(Frozen, kind="finish"):
    """Every local node has ended and its queues hold the event. The link sends what waits, for at
    most ``seconds``, informs its peers, answers Finished and exits."""

    seconds: float


# ------------------------------------------------------------------------------ link to runner


class Listening(Frozen, kind="listening"):
    """The session is open at these addresses (``HOST:PORT``)."""

    endpoints: tuple[str, ...]


class Failed(Frozen, kind="failed"):
    """The link cannot run and exits; the reason includes the remedy."""

    reason: str


class PeerChanged(Frozen, kind="peer_changed"):
    """State of one peer, sent whenever it changes."""

    peer: PeerReport


class QueuesFed(Frozen, kind="queues_fed"):
    """Queues that lose no message of another machine from now on; replaces the previous list.

    Before, the sending side may not have received that the stream has a consumer, and drop its
    messages.
    """

    queues: tuple[int, ...]


class SourceEvent(Frozen, kind="source_event"):
    """Lifecycle event of a node on another machine; the local queues already hold the record."""

    machine: str
    node: str
    output: str
    event: Literal["closed", "restarted", "failed"]
    error: str = ""


class StreamCount(Frozen):
    """One stream's counters since the link started."""

    machine: str
    """The other machine."""
    node: str
    output: str
    direction: Literal["out", "in"]
    messages: int = 0
    bytes: int = 0
    lost: int = 0
    """``in``: gaps in the sequence that no queue accounts for, and messages that could not be
    decoded or stored. ``out``: messages dropped because the peer's part ended or was restarted, or
    lost with a killed link process."""
    waiting: int = 0
    """Messages that wait for a local consumer (``in``), or are unacknowledged (``out``)."""
    resent: int = 0
    invalid: int = 0
    """Messages dropped because their content failed validation."""
    wire_bytes: int = 0
    """Bytes of ``messages`` as they were sent, compressed (``out``)."""
    uncompressed: str = ""
    """Why the last message was not compressed (``out``)."""


class StreamCounts(Frozen, kind="stream_counts"):
    """Streams whose counters changed, at most once a second."""

    streams: tuple[StreamCount, ...]


class Note(Frozen, kind="note"):
    """A line for the dataflow's log."""

    level: Literal["error", "warn", "info", "debug"]
    message: str


class Finished(Frozen, kind="finished"):
    """Answer to Finish: all but ``undelivered`` messages were acknowledged."""

    undelivered: int = 0


ToLink = Configure | SetPeers | SetOutgoing | SetIncoming | Finish
ToRunner = (
    Listening | Failed | PeerChanged | QueuesFed | SourceEvent | StreamCounts | Note | Finished
)

_DEFERRED = ConfigDict(defer_build=True)
_TO_LINK: TypeAdapter[ToLink] = TypeAdapter(
    Annotated[ToLink, Field(discriminator="kind")], config=_DEFERRED
)
_TO_RUNNER: TypeAdapter[ToRunner] = TypeAdapter(
    Annotated[ToRunner, Field(discriminator="kind")], config=_DEFERRED
)


def encode(message: ToLink | ToRunner) -> bytes:
    """Return the message as one line with its newline."""
    return message.model_dump_json().encode() + b"\n"


def decode_for_link(line: bytes) -> ToLink:
    """Parse a message of the runner. Raises ValueError."""
    return _TO_LINK.validate_json(line)


def decode_for_runner(line: bytes) -> ToRunner:
    """Parse a message of the link. Raises ValueError."""
    return _TO_RUNNER.validate_json(line)


class LineBuffer:
    """Splits a byte stream into lines."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now. Raises ValueError past MAX_LINE."""
        self._data += data
        *lines, rest = self._data.split(b"\n")
        if len(rest) > MAX_LINE:
            raise ValueError(f"line of more than {MAX_LINE} bytes")
        self._data = bytearray(rest)
        return [bytes(line) for line in lines if line]
