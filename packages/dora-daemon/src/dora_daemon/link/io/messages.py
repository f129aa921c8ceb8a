"""runner <-> link: what travels on the carrier socket, one JSON object a line; does no I/O.

The runner starts ``python -m dora_daemon.link --socket PATH --incarnation N --carrier FD``: PATH is
its node socket, on which the link says Hello as the node :data:`LINK_NODE` and gets its queues and
routes like any node; FD is one end of a Unix stream socketpair that the link inherits. End-of-file
on it ends the link.

The order on the carrier socket:

    runner                                   link
    Configure                        ->
                                     <-      Listening (or Failed, and the link ends with code 1)
    SetOutgoing, SetIncoming, SetPeers ->    each as often as it changes, always the full list
                                     <-      PeerChanged, SourceNews, StreamCounts, Note
    Finish                           ->      nothing more will be sent by local nodes
                                     <-      Finished, and the link ends with code 0

A list may name a queue before its descriptors came over the node socket: the stream begins once
both are there.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

MAX_LINE: Final = 16 * 1024 * 1024
"""Bytes one message may take."""


class LinkMessage(BaseModel):
    """Base of all messages: immutable, tolerant of fields a newer version added."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


# ------------------------------------------------------------------------------ runner to link


class Configure(LinkMessage):
    """First message: who we are, where to listen, what to prove ourselves with."""

    kind: Literal["configure"] = "configure"
    dataflow_id: str
    network: str
    """Separates clusters that share an address space; part of every key."""
    machine: str
    """Key of this daemon as the coordinator knows it."""
    run_id: str
    """Names this life of the part: another one after every spawn, the same for a restarted link."""
    listen_host: str
    first_port: int
    last_port: int
    port: int | None = None
    """The port that an earlier link of this part had: tried first, so that peers find it again."""
    credentials: str | None
    """Folder with ca.pem, cert.pem, key.pem, read again at every reconnect. ``None``: no TLS, which
    is for tests on loopback alone and is refused for any other address."""
    window_bytes: int = 32 * 1024 * 1024
    """Bytes that a stream may have on the way, at least one message."""
    window_messages: int = 256


class Peer(LinkMessage):
    """Another machine's link and where it listens, as ``HOST:PORT`` (IPv6 in brackets)."""

    machine: str
    run_id: str
    endpoints: tuple[str, ...]


class SetPeers(LinkMessage):
    """All links that this one exchanges messages with. One with another run_id is another life of
    its part: what the old one had not acknowledged goes to the new one. One that is missing has
    ended for good: what waits for it is given up, and its streams are closed."""

    kind: Literal["set_peers"] = "set_peers"
    peers: tuple[Peer, ...]


class Outgoing(LinkMessage):
    """What waits in a queue of LINK_NODE is to go to a machine."""

    machine: str
    """The consumers' machine."""
    node: str
    output: str
    queue: int
    """Number of the queue (`QueueSpec.queue`) whose consumer the link is."""


class SetOutgoing(LinkMessage):
    """All streams that leave this machine."""

    kind: Literal["set_outgoing"] = "set_outgoing"
    streams: tuple[Outgoing, ...]


class Incoming(LinkMessage):
    """What a machine sends of an output goes to these local queues."""

    machine: str
    """The source's machine."""
    node: str
    output: str
    queues: tuple[int, ...] = ()
    """Numbers of the local consumers' queues. Their `AddRoute.output` is ``{node}/{output}``. None
    left: the far side is told that nobody listens and its producer does not wait."""


class SetIncoming(LinkMessage):
    """All streams that enter this machine."""

    kind: Literal["set_incoming"] = "set_incoming"
    streams: tuple[Incoming, ...]


class Finish(LinkMessage):
    """Every local node has ended and its queues hold the news of it. The link passes on what waits,
    for at most so many seconds, tells its peers that it leaves, says Finished and ends."""

    kind: Literal["finish"] = "finish"
    seconds: float


# ------------------------------------------------------------------------------ link to runner


class Listening(LinkMessage):
    """The session is open; peers can connect to these addresses (``HOST:PORT``)."""

    kind: Literal["listening"] = "listening"
    endpoints: tuple[str, ...]


class Failed(LinkMessage):
    """The link cannot do its work and ends; a sentence that says why and what to do."""

    kind: Literal["failed"] = "failed"
    reason: str


class PeerChanged(LinkMessage):
    """What is known of one peer; said again whenever it changes."""

    kind: Literal["peer_changed"] = "peer_changed"
    machine: str
    state: Literal["connecting", "proven", "lost", "left"]
    """proven: messages went both ways in the present session and both sides name the same streams.
    connecting: not since its run_id was told. lost: it was proven; the link keeps trying. left: the
    peer's part has ended in good order, nothing is kept for it."""
    run_id: str
    reason: str = ""
    """Of connecting and lost: what was tried and what stands in the way."""
    endpoint: str = ""
    """Address that is connected, or that was tried last."""
    slow: bool = False
    """Connections to it are made, but take long."""
    rtt_us: int | None = None
    clock_offset_us: int | None = None
    """The peer's wall clock minus ours; good to half the round trip."""


class SourceNews(LinkMessage):
    """Life of a node on another machine. The local queues have the record already."""

    kind: Literal["source_news"] = "source_news"
    machine: str
    node: str
    output: str
    news: Literal["closed", "restarted", "failed"]
    error: str = ""


class StreamCount(LinkMessage):
    """One stream's counters since the link started."""

    machine: str
    """The other machine."""
    node: str
    output: str
    direction: Literal["out", "in"]
    messages: int = 0
    bytes: int = 0
    lost: int = 0
    """Of ``in``: gaps in the sequence that no queue accounts for. Of ``out``: given up because the
    peer's part left or was started anew."""
    waiting: int = 0
    """Messages of ``out`` that are not acknowledged; of ``in`` that wait for a local consumer."""
    resent: int = 0
    invalid: int = 0
    """Messages whose contents did not pass validation; dropped."""


class StreamCounts(LinkMessage):
    """Streams whose counters changed, at most once a second."""

    kind: Literal["stream_counts"] = "stream_counts"
    streams: tuple[StreamCount, ...]


class Note(LinkMessage):
    """A line for the dataflow's log."""

    kind: Literal["note"] = "note"
    level: Literal["error", "warn", "info", "debug"]
    message: str


class Finished(LinkMessage):
    """Answer to Finish: everything was passed on but ``undelivered`` messages."""

    kind: Literal["finished"] = "finished"
    undelivered: int = 0


ToLink = Configure | SetPeers | SetOutgoing | SetIncoming | Finish
ToRunner = Listening | Failed | PeerChanged | SourceNews | StreamCounts | Note | Finished

T = TypeVar("T")
_DEFERRED = ConfigDict(defer_build=True)
_TO_LINK: TypeAdapter[ToLink] = TypeAdapter(
    Annotated[ToLink, Field(discriminator="kind")], config=_DEFERRED
)
_TO_RUNNER: TypeAdapter[ToRunner] = TypeAdapter(
    Annotated[ToRunner, Field(discriminator="kind")], config=_DEFERRED
)


def encode(message: ToLink | ToRunner) -> bytes:
    """One line, its end included."""
    return message.model_dump_json().encode() + b"\n"


def decode_for_link(line: bytes) -> ToLink | None:
    """What the runner says; None for a kind that this version does not know. Raises ValueError."""
    return _decode(_TO_LINK, line)


def decode_for_runner(line: bytes) -> ToRunner | None:
    """What the link says; None for a kind that this version does not know. Raises ValueError."""
    return _decode(_TO_RUNNER, line)


def _decode(adapter: TypeAdapter[T], line: bytes) -> T | None:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        if any(problem["type"] == "union_tag_invalid" for problem in error.errors()):
            return None
        raise ValueError(f"no message of the link: {line[:200]!r}: {error}") from error


class Lines:
    """Bytes in, whole lines out."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends. Raises ValueError past MAX_LINE."""
        self._data += data
        *lines, rest = self._data.split(b"\n")
        if len(rest) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
        self._data = bytearray(rest)
        return [bytes(line) for line in lines if line]
