"""What links say to each other: frames to bytes and back; pure.

A frame is one Zenoh sample. All numbers are little-endian. It begins with 24 bytes:

    magic     2   "dL"
    kind      1   `FrameKind`
    flags     1   of DATA: 1 protected, 2 flush (as in queue records)
    stream    4   number that the sending link gave the stream in its greeting; 0 for none
    sender    8   number of the link that says it, drawn anew by each process
    receiver  8   number of the link that it is meant for; 0 in the first greeting

and then, by kind:

    GREETING  JSON, see `greeting`
    PING      time 8; acknowledgements as in ACK
    PONG      time of the ping 8, CLOCK_MONOTONIC 8, CLOCK_REALTIME 8 of who answers
    ACK       for each stream: number 4, last message that is in all local queues 8
    DATA      sequence 8, previous 8, sent (CLOCK_MONOTONIC of the sender) 8, timestamp
              (CLOCK_REALTIME) 8, layout 8, length 8, null count 8, size of the data area 8, bytes
              of descriptor 4 and metadata 4; descriptor, metadata, as much of the data area as
              fits into this frame
    CHUNK     sequence 8, offset in the data area 8; more of the data area
    NEWS      sequence 8, previous 8, `RecordKind` 8; text (of NODE_FAILED)
    BYE       nothing: the sender's part of the dataflow has ended
    TOGETHER  frames of DATA and NEWS, each after its length 4: small messages of one stream

Sequence numbers are those of the sender's own queue of the stream, so they grow by one for every
message of the source, across restarts of the link and of the source. `previous` is the number of
the message that goes before this one over the link: what lies between was dropped in the queue.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from dora_daemon.link.errors import WireError
from dora_node_api.frozen import Frozen
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED, RecordKind
from dora_node_api.transport.shared.message_parts import Parts

MAGIC: Final = 0x4C64  # "dL"
HEAD: Final = struct.Struct("<HBBIQQ")
_PING: Final = struct.Struct("<Q")
_PONG: Final = struct.Struct("<QQQ")
_ACK: Final = struct.Struct("<IQ")
_LENGTH: Final = struct.Struct("<I")
_DATA: Final = struct.Struct("<QQQQQqqQII")
_CHUNK: Final = struct.Struct("<QQ")
_NEWS: Final = struct.Struct("<QQQ")
DATA_AT: Final = HEAD.size + _DATA.size

LARGEST_MESSAGE: Final = 4 << 30
"""Bytes of one message's data area; a frame that names more is refused."""
LARGEST_DESCRIPTOR: Final = 16 << 20
LARGEST_METADATA: Final = 16 << 20
_LARGEST_NUMBER: Final = 1 << 62
_FLAGS: Final = FLAG_PROTECTED | FLAG_FLUSH


class FrameKind(IntEnum):
    """What a frame is."""

    GREETING = 1
    PING = 2
    PONG = 3
    ACK = 4
    DATA = 5
    CHUNK = 6
    NEWS = 7
    BYE = 8
    TOGETHER = 9


class Head(NamedTuple):
    """The beginning of every frame."""

    magic: int
    kind: int
    flags: int
    stream: int
    sender: int
    receiver: int


class Data:
    """First, and often only, frame of a message. Plain: one is made for every message."""

    __slots__ = ("data", "flags", "parts", "previous", "sent_ns", "sequence", "whole")

    def __init__(
        self,
        sequence: int,
        previous: int,
        sent_ns: int,
        flags: int,
        parts: Parts,
        data: memoryview,
        whole: bool,
    ) -> None:
        self.sequence = sequence
        self.previous = previous
        self.sent_ns = sent_ns
        self.flags = flags
        """FLAG_PROTECTED, FLAG_FLUSH."""
        self.parts = parts
        self.data = data
        """The first bytes of the data area."""
        self.whole = whole
        """Whether they are all of it."""


class Chunk(Frozen):
    """More of a message."""

    sequence: int
    offset: int
    data: memoryview


class News(Frozen):
    """What ends or changes the stream, in its place among the messages."""

    sequence: int
    previous: int
    kind: RecordKind
    error: str


class Pong(Frozen):
    """The answer to a ping."""

    asked_ns: int
    monotonic_ns: int
    wall_ns: int


# --- to bytes -------------------------------------------------------------------------------------


def head(kind: int, sender: int, receiver: int, *, stream: int = 0, flags: int = 0) -> bytes:
    """The beginning of a frame."""
    return HEAD.pack(MAGIC, kind, flags, stream, sender, receiver)


def readdress(frame: bytes, receiver: int) -> bytes:
    """The same frame for another receiver."""
    return frame[:16] + receiver.to_bytes(8, "little") + frame[24:]


def data_head(head_bytes: bytes, sequence: int, previous: int, sent_ns: int, parts: Parts) -> bytes:
    """All of a DATA frame that comes before the data area."""
    numbers = _DATA.pack(
        sequence, previous, sent_ns, parts.timestamp_ns, parts.layout, parts.length,
        parts.null_count, parts.nbytes, len(parts.descriptor), len(parts.metadata),
    )  # fmt: skip
    return b"".join((head_bytes, numbers, parts.descriptor, parts.metadata))


def chunk_head(head_bytes: bytes, sequence: int, offset: int) -> bytes:
    return head_bytes + _CHUNK.pack(sequence, offset)


def news_body(sequence: int, previous: int, kind: RecordKind, error: str) -> bytes:
    return _NEWS.pack(sequence, previous, kind) + error.encode("utf-8", "replace")


def together_body(frames: Iterable[bytes]) -> bytes:
    return b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame))


def acks_body(acks: Iterable[tuple[int, int]]) -> bytes:
    """Pairs of stream number and sequence."""
    return b"".join(_ACK.pack(stream, sequence) for stream, sequence in acks)


def ping_body(now_ns: int, acks: Iterable[tuple[int, int]]) -> bytes:
    return _PING.pack(now_ns) + acks_body(acks)


def pong_body(asked_ns: int, monotonic_ns: int, wall_ns: int) -> bytes:
    return _PONG.pack(asked_ns, monotonic_ns, wall_ns)


# --- and back; everything here raises WireError, and nothing else, for what is no frame -----------


def read_head(frame: bytes) -> Head:
    if len(frame) < HEAD.size:
        raise WireError(f"{len(frame)} bytes, a frame has at least {HEAD.size}")
    read = Head._make(HEAD.unpack_from(frame))
    if read.magic != MAGIC:
        raise WireError("no frame of a link")
    return read


def read_data(frame: bytes) -> Data:
    if len(frame) < DATA_AT:
        raise WireError(f"a DATA frame of {len(frame)} bytes")
    (
        sequence, previous, sent_ns, timestamp, layout, length, nulls, nbytes, described, meta,
    ) = _DATA.unpack_from(frame, HEAD.size)  # fmt: skip
    middle = DATA_AT + described
    end = middle + meta
    if described > LARGEST_DESCRIPTOR or meta > LARGEST_METADATA or end > len(frame):
        raise WireError(f"a descriptor of {described} and metadata of {meta} bytes do not fit")
    if nbytes > LARGEST_MESSAGE:
        raise WireError(f"a message of {nbytes} bytes, at most {LARGEST_MESSAGE} are taken")
    if not previous < sequence < _LARGEST_NUMBER:
        raise WireError(f"message {sequence} after {previous}")
    if not 0 <= length < _LARGEST_NUMBER or not -1 <= nulls <= length:
        raise WireError(f"{length} elements of which {nulls} are null")
    if layout >> 32:
        raise WireError(f"a message of the unknown layout {layout}")
    if timestamp >= _LARGEST_NUMBER << 1 or sent_ns >= _LARGEST_NUMBER:
        raise WireError(f"a message of {timestamp} ns, sent at {sent_ns} ns")
    data = memoryview(frame)[end:]
    if len(data) > nbytes:
        raise WireError(f"{len(data)} bytes of a data area of {nbytes}")
    parts = Parts(
        frame[DATA_AT:middle], frame[middle:end], layout, length, nulls, nbytes, timestamp
    )
    return Data(sequence, previous, sent_ns, frame[3] & _FLAGS, parts, data, len(data) == nbytes)


def read_chunk(frame: bytes) -> Chunk:
    at = HEAD.size + _CHUNK.size
    if len(frame) <= at:
        raise WireError(f"a CHUNK frame of {len(frame)} bytes")
    sequence, offset = _CHUNK.unpack_from(frame, HEAD.size)
    if offset > LARGEST_MESSAGE:
        raise WireError(f"a chunk at {offset}")
    return Chunk(sequence, offset, memoryview(frame)[at:])


def read_together(frame: bytes) -> Iterator[bytes]:
    """The frames in a frame. What comes before the place where it is broken is read."""
    at, end = HEAD.size, len(frame)
    while at < end:
        start = at + _LENGTH.size
        if start > end:
            raise WireError(f"{end - at} bytes where a length has {_LENGTH.size}")
        at = start + _LENGTH.unpack_from(frame, at)[0]
        if at > end:
            raise WireError(f"a frame that ends {at - end} bytes after the one around it")
        yield frame[start:at]


_NEWS_KINDS: Final = {
    int(kind): kind
    for kind in (RecordKind.CLOSED, RecordKind.NODE_RESTARTED, RecordKind.NODE_FAILED)
}


def read_news(frame: bytes) -> News:
    at = HEAD.size + _NEWS.size
    if len(frame) < at:
        raise WireError(f"a NEWS frame of {len(frame)} bytes")
    sequence, previous, kind = _NEWS.unpack_from(frame, HEAD.size)
    known = _NEWS_KINDS.get(kind)
    if known is None or not previous < sequence < _LARGEST_NUMBER:
        raise WireError(f"news {sequence} of kind {kind} after {previous}")
    return News(sequence, previous, known, frame[at : at + 4096].decode("utf-8", "replace"))


def read_acks(frame: bytes, at: int = HEAD.size) -> Sequence[tuple[int, int]]:
    if (len(frame) - at) % _ACK.size:
        raise WireError(f"acknowledgements of {len(frame) - at} bytes")
    return [_ACK.unpack_from(frame, start) for start in range(at, len(frame), _ACK.size)]


def read_ping(frame: bytes) -> tuple[int, Sequence[tuple[int, int]]]:
    """The sender's time and its acknowledgements."""
    if len(frame) < HEAD.size + _PING.size:
        raise WireError(f"a PING frame of {len(frame)} bytes")
    return _PING.unpack_from(frame, HEAD.size)[0], read_acks(frame, HEAD.size + _PING.size)


def read_pong(frame: bytes) -> Pong:
    if len(frame) != HEAD.size + _PONG.size:
        raise WireError(f"a PONG frame of {len(frame)} bytes")
    return Pong(*_PONG.unpack_from(frame, HEAD.size))
