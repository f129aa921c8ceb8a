"""Frames between links: the wire format and its version.

A frame is one Zenoh sample. All numbers are little-endian. It begins with 22 bytes:

    kind      1   `FrameKind`
    flags     1   of DATA and IMAGE: 1 protected, 2 flush (as in queue records); of DATA: 128
                  compressed: the data area is as in `codecs.coded`; of PART see below
    stream    4   number of the stream in the sending link's hello; 0 for none
    sender    8   id of the sending link, random for each process
    receiver  8   id of the receiving link; 0 in the first hello

and continues, by kind:

    HELLO     JSON, see `hello`; it carries the version
    PING      time 8; acknowledgements as in ACK
    PONG      time of the ping 8, CLOCK_MONOTONIC 8, CLOCK_REALTIME 8 of the answering link
    ACK       for each stream: number 4, last message in all local queues 8
    DATA      sequence 8, previous 8, sent (CLOCK_MONOTONIC of the sender) 8, timestamp
              (CLOCK_REALTIME) 8, layout 8, length 8, null count 8, size of the data area 8, bytes
              of descriptor 4 and metadata 4; descriptor, metadata, as much of the data area as
              fits into this frame
    CHUNK     sequence 8, offset in the data area 8; more of the data area
    LIFECYCLE sequence 8, previous 8, `RecordKind` 8; text (of NODE_FAILED)
    BYE       empty: the sender's part of the dataflow has ended
    PART      part of an IMAGE or IMAGES frame, cut because the low-latency connection carries only
              short frames; flags: 1 the first, 2 the last; stream: number of the frame in parts
    LOW_LATENCY  answer requested 1, Zenoh id of the sending session: opens the low-latency
              connection, over which it is sent, in both directions
    IMAGE     a small message: an acknowledgement as in ACK (stream 0: none); sequence 8,
              previous 8, sent 8; the image as in `dora_node_api.transport.shared.payload`
    IMAGES    small messages of any streams: an acknowledgement as in IMAGE; for each message:
              stream 4, flags 4, sequence 8, previous 8, sent 8, size of the image 4; the image

Sequence numbers are those of the sender's own queue of the stream, so they grow by one for every
message of the source, across restarts of the link and of the source. `previous` is the number of
the message sent before this one; those in between were dropped in the queue.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final

from dora_daemon.link.errors import WireError
from dora_node_api.frozen import FrozenRecord
from dora_node_api.transport.shared.layout import FLAG_FLUSH, FLAG_PROTECTED, RecordKind
from dora_node_api.transport.shared.payload import Payload

HEAD: Final = struct.Struct("<BBIQQ")
_unpack_head = HEAD.unpack_from
_pack_head = HEAD.pack
_PING: Final = struct.Struct("<Q")
_PONG: Final = struct.Struct("<QQQ")
_ACK: Final = struct.Struct("<IQ")
_ONE: Final = struct.Struct("<IQQQQ")
_unpack_one = _ONE.unpack_from
_pack_image = struct.Struct(HEAD.format + _ONE.format.lstrip("<")).pack
_IMAGES_AT: Final = HEAD.size + _ACK.size
_IMAGE: Final = struct.Struct("<IIQQQI")
_DATA: Final = struct.Struct("<QQQQQqqQII")
_CHUNK: Final = struct.Struct("<QQ")
_LIFECYCLE: Final = struct.Struct("<QQQ")
_LOW_LATENCY: Final = struct.Struct("<B")
DATA_AT: Final = HEAD.size + _DATA.size
CHUNK_AT: Final = HEAD.size + _CHUNK.size
"""Offset of the data in a CHUNK frame."""
_unpack_chunk = _CHUNK.unpack_from
IMAGE_AT: Final = HEAD.size + _ONE.size
"""Offset of the image in an IMAGE frame."""

MAX_MESSAGE: Final = 4 << 30
"""Largest data area in bytes."""
MAX_DESCRIPTOR: Final = 16 << 20
MAX_METADATA: Final = 16 << 20
"""Most bytes of descriptor and metadata of a message."""
MAX_PARTED: Final = 128 << 10
"""Largest frame that is sent in parts, in bytes."""
_FIRST: Final = 1
_LAST: Final = 2
"""Flags of the first and the last PART of a frame."""
_MAX_NUMBER: Final = 1 << 62
"""Exclusive upper bound of numbers and times in frames."""
_FLAGS: Final = FLAG_PROTECTED | FLAG_FLUSH
FLAG_CODED: Final = 128
"""Flag of a message that is compressed."""
MAX_CODED: Final = 256 << 20
"""Largest data area that is sent compressed, in bytes."""


class FrameKind(IntEnum):
    """Kind of a frame."""

    HELLO = 1
    PING = 2
    PONG = 3
    ACK = 4
    DATA = 5
    CHUNK = 6
    LIFECYCLE = 7
    BYE = 8
    IMAGES = 9
    LOW_LATENCY = 10
    PART = 11
    IMAGE = 12


HELLO_KIND: Final = int(FrameKind.HELLO)
IMAGE_KIND: Final = int(FrameKind.IMAGE)
PART_KIND: Final = int(FrameKind.PART)
CHUNK_KIND: Final = int(FrameKind.CHUNK)
"""FrameKind.CHUNK as a plain integer, because comparing enumeration members is slow."""

Head = tuple[int, int, int, int, int]
"""Kind, flags, stream, sender and receiver of a frame."""
Ack = tuple[int, int]
"""Number of a stream (0: no acknowledgement), and sequence of its last stored message."""


class Data:
    """First, and often only, frame of a message. Not a `FrozenRecord`: each message has one."""

    __slots__ = ("coded", "data", "flags", "parts", "previous", "sent_ns", "sequence", "whole")

    def __init__(
        self,
        sequence: int,
        previous: int,
        sent_ns: int,
        flags: int,
        parts: Payload,
        data: memoryview,
        whole: bool,
        coded: bool = False,
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
        """Whether `data` is the whole data area."""
        self.coded = coded
        """Whether the data area is compressed."""


class LifecycleEvent(FrozenRecord):
    """Event that ends or changes the stream, in its place among the messages."""

    sequence: int
    previous: int
    kind: RecordKind
    error: str


class Pong(FrozenRecord):
    """Answer to a ping."""

    ping_sent_ns: int
    monotonic_ns: int
    wall_ns: int


# --- encoding -------------------------------------------------------------------------------------


def head(kind: int, sender: int, receiver: int, *, stream: int = 0, flags: int = 0) -> bytes:
    """Return the head of a frame."""
    return HEAD.pack(kind, flags, stream, sender, receiver)


def data_head(
    head_bytes: bytes, sequence: int, previous: int, sent_ns: int, parts: Payload
) -> bytes:
    """Return a DATA frame without its data area."""
    numbers = _DATA.pack(
        sequence, previous, sent_ns, parts.timestamp_ns, parts.layout, parts.length,
        parts.null_count, parts.nbytes, len(parts.descriptor), len(parts.metadata),
    )  # fmt: skip
    return b"".join((head_bytes, numbers, parts.descriptor, parts.metadata))


def chunk_head(head_bytes: bytes, sequence: int, offset: int) -> bytes:
    """Return a CHUNK frame without its data."""
    return head_bytes + _CHUNK.pack(sequence, offset)


def lifecycle_body(sequence: int, previous: int, kind: RecordKind, error: str) -> bytes:
    """Return the body of a LIFECYCLE frame."""
    return _LIFECYCLE.pack(sequence, previous, kind) + error.encode("utf-8", "replace")


def images_head(sender: int, receiver: int, ack: Ack) -> bytes:
    """Return an IMAGES frame without messages."""
    return head(FrameKind.IMAGES, sender, receiver) + _ACK.pack(*ack)


def image_head(
    stream: int, sequence: int, previous: int, sent_ns: int, flags: int, size: int
) -> bytes:
    """Return the bytes before each image of an IMAGES frame."""
    return _IMAGE.pack(stream, flags & _FLAGS, sequence, previous, sent_ns, size)


def single_image_head(
    sender: int,
    receiver: int,
    ack: Ack,
    stream: int,
    sequence: int,
    previous: int,
    sent_ns: int,
    flags: int,
) -> bytes:
    """Return an IMAGE frame without its image."""
    return _pack_image(
        *(IMAGE_KIND, flags & _FLAGS, stream, sender, receiver),
        *(ack[0], ack[1], sequence, previous, sent_ns),
    )


def acks_body(acks: Iterable[Ack]) -> bytes:
    """Return the body of an ACK frame from pairs of stream number and sequence."""
    return b"".join(_ACK.pack(stream, sequence) for stream, sequence in acks)


def ping_body(now_ns: int, acks: Iterable[Ack]) -> bytes:
    """Return the body of a PING frame."""
    return _PING.pack(now_ns) + acks_body(acks)


def pong_body(ping_sent_ns: int, monotonic_ns: int, wall_ns: int) -> bytes:
    """Return the body of a PONG frame."""
    return _PONG.pack(ping_sent_ns, monotonic_ns, wall_ns)


def low_latency_body(zid: str, *, wants_answer: bool) -> bytes:
    """Return the body of a LOW_LATENCY frame."""
    return _LOW_LATENCY.pack(wants_answer) + zid.encode("ascii")


def parts_of(
    number: int, begin: bytes, rest: bytes | memoryview, sender: int, receiver: int, most: int
) -> list[bytes]:
    """Cut the frame ``begin + rest`` into PART frames of at most ``most`` bytes.

    ``number`` is the frame's own. ``begin`` fits into the first part. Each byte is copied once.
    """
    view, size, room = memoryview(rest), len(rest), most - HEAD.size
    parts: list[bytes] = []
    at, end, flags = 0, room - len(begin), _FIRST
    while True:
        if end >= size:
            flags |= _LAST
        part_head = _pack_head(PART_KIND, flags, number, sender, receiver)
        parts.append(b"".join((part_head, begin, view[at:end])))
        if end >= size:
            return parts
        at, end, begin, flags = end, end + room, b"", 0


class FrameJoiner:
    """Joins PART frames of one peer, whose connections may overlap. One thread at a time."""

    def __init__(self) -> None:
        self._number = 0
        self._parts: list[memoryview] = []
        self._size = 0

    def add(self, frame: bytes) -> bytes | None:
        """Add a PART frame; return the frame of which it is the last one. Raises WireError.

        The first part of another frame replaces a frame that is incomplete.
        """
        _, flags, number, _, _ = _unpack_head(frame)
        if flags & _FIRST:
            self._number, self._parts, self._size = number, [], 0
        elif number != self._number or not self._parts:
            return None
        self._size += len(frame) - HEAD.size
        if self._size > MAX_PARTED:
            self._parts = []
            raise WireError(f"frame of {self._size} bytes in parts")
        self._parts.append(memoryview(frame)[HEAD.size :])
        if not flags & _LAST:
            return None
        parts, self._parts = self._parts, []
        return b"".join(parts)


# --- decoding: each function raises WireError, and nothing else, for a malformed frame ------------


def read_head(frame: bytes) -> Head:
    """Parse the head of a frame."""
    if len(frame) < HEAD.size:
        raise WireError(f"frame of {len(frame)} bytes, expected at least {HEAD.size}")
    return _unpack_head(frame)


def read_data(frame: bytes) -> Data:
    """Parse a DATA frame."""
    if len(frame) < DATA_AT:
        raise WireError(f"DATA frame of {len(frame)} bytes")
    (
        sequence, previous, sent_ns, timestamp, layout, length, nulls, nbytes, described, meta,
    ) = _DATA.unpack_from(frame, HEAD.size)  # fmt: skip
    middle = DATA_AT + described
    end = middle + meta
    if described > MAX_DESCRIPTOR or meta > MAX_METADATA or end > len(frame):
        raise WireError(f"descriptor of {described} and metadata of {meta} bytes do not fit")
    coded = bool(frame[1] & FLAG_CODED)
    most = MAX_CODED if coded else MAX_MESSAGE
    if nbytes > most:
        raise WireError(f"message of {nbytes} bytes, at most {most} are accepted")
    if not previous < sequence < _MAX_NUMBER:
        raise WireError(f"message {sequence} after {previous}")
    if not 0 <= length < _MAX_NUMBER or not -1 <= nulls <= length:
        raise WireError(f"{length} elements of which {nulls} are null")
    if layout >> 32:
        raise WireError(f"message of the unknown layout {layout}")
    if timestamp >= _MAX_NUMBER << 1 or sent_ns >= _MAX_NUMBER:
        raise WireError(f"message of {timestamp} ns, sent at {sent_ns} ns")
    data = memoryview(frame)[end:]
    if len(data) > nbytes:
        raise WireError(f"{len(data)} bytes for a data area of {nbytes}")
    parts = Payload(
        *(frame[DATA_AT:middle], frame[middle:end], layout, length, nulls, nbytes),
        timestamp_ns=timestamp,
    )
    whole = len(data) == nbytes
    return Data(sequence, previous, sent_ns, frame[1] & _FLAGS, parts, data, whole, coded)


def read_chunk(frame: bytes) -> tuple[int, int]:
    """Parse a CHUNK frame, whose data begins at CHUNK_AT: sequence of the message, and offset."""
    if len(frame) <= CHUNK_AT:
        raise WireError(f"CHUNK frame of {len(frame)} bytes")
    sequence, offset = _unpack_chunk(frame, HEAD.size)
    if offset > MAX_MESSAGE:
        raise WireError(f"chunk at {offset}")
    return sequence, offset


Image = tuple[int, int, int, int, int, int]
"""Sequence, previous, sent time and flags of a message; start and end of its image."""


def read_image(frame: bytes) -> tuple[int, int, Image]:
    """Parse an IMAGE frame: acknowledged stream and message, and the image."""
    if len(frame) < IMAGE_AT:
        raise WireError(f"IMAGE frame of {len(frame)} bytes")
    acknowledged, upto, sequence, previous, sent_ns = _unpack_one(frame, HEAD.size)
    if not previous < sequence < _MAX_NUMBER or sent_ns >= _MAX_NUMBER:
        raise WireError(f"message {sequence} after {previous}, sent at {sent_ns} ns")
    image = (sequence, previous, sent_ns, frame[1] & _FLAGS, IMAGE_AT, len(frame))
    return acknowledged, upto, image


def read_images_ack(frame: bytes) -> Ack:
    """Return the acknowledgement of an IMAGES frame."""
    if len(frame) < _IMAGES_AT:
        raise WireError(f"IMAGES frame of {len(frame)} bytes")
    return _ACK.unpack_from(frame, HEAD.size)


def read_images(frame: bytes) -> Iterator[tuple[int, list[Image]]]:
    """Yield the images of an IMAGES frame up to the first malformed one, then raise WireError.

    Images of one stream that follow each other come together, with the stream's number.
    """
    at, end = _IMAGES_AT, len(frame)
    current, images = 0, list[Image]()
    problem = None
    while at < end:
        start = at + _IMAGE.size
        if start > end:
            problem = f"{end - at} bytes for the head of an image"
            break
        stream, flags, sequence, previous, sent_ns, size = _IMAGE.unpack_from(frame, at)
        at = start + size
        if at > end:
            problem = f"image ends {at - end} bytes after its frame"
            break
        if not previous < sequence < _MAX_NUMBER or sent_ns >= _MAX_NUMBER:
            problem = f"message {sequence} after {previous}, sent at {sent_ns} ns"
            break
        if stream != current and images:
            yield current, images
            images = []
        current = stream
        images.append((sequence, previous, sent_ns, flags & _FLAGS, start, at))
    if images:
        yield current, images
    if problem is not None:
        raise WireError(problem)


def read_low_latency(frame: bytes) -> tuple[bool, str]:
    """Parse a LOW_LATENCY frame: whether it requests an answer, and the session's Zenoh id."""
    at = HEAD.size + _LOW_LATENCY.size
    if not at <= len(frame) <= at + 64:
        raise WireError(f"LOW_LATENCY frame of {len(frame)} bytes")
    (wants_answer,) = _LOW_LATENCY.unpack_from(frame, HEAD.size)
    return bool(wants_answer), frame[at:].decode("ascii", "replace")


_LIFECYCLE_KINDS: Final = {
    int(kind): kind
    for kind in (RecordKind.CLOSED, RecordKind.NODE_RESTARTED, RecordKind.NODE_FAILED)
}


def read_lifecycle(frame: bytes) -> LifecycleEvent:
    """Parse a LIFECYCLE frame."""
    at = HEAD.size + _LIFECYCLE.size
    if len(frame) < at:
        raise WireError(f"LIFECYCLE frame of {len(frame)} bytes")
    sequence, previous, kind = _LIFECYCLE.unpack_from(frame, HEAD.size)
    known = _LIFECYCLE_KINDS.get(kind)
    if known is None or not previous < sequence < _MAX_NUMBER:
        raise WireError(f"lifecycle event {sequence} of kind {kind} after {previous}")
    return LifecycleEvent(
        sequence, previous, known, frame[at : at + 4096].decode("utf-8", "replace")
    )


def read_acks(frame: bytes, at: int = HEAD.size) -> Sequence[Ack]:
    """Parse acknowledgements: pairs of stream number and sequence."""
    if (len(frame) - at) % _ACK.size:
        raise WireError(f"acknowledgements of {len(frame) - at} bytes")
    return [_ACK.unpack_from(frame, start) for start in range(at, len(frame), _ACK.size)]


def read_ping(frame: bytes) -> tuple[int, Sequence[Ack]]:
    """Parse a PING frame: the sender's time and its acknowledgements."""
    if len(frame) < HEAD.size + _PING.size:
        raise WireError(f"PING frame of {len(frame)} bytes")
    return _PING.unpack_from(frame, HEAD.size)[0], read_acks(frame, HEAD.size + _PING.size)


def read_pong(frame: bytes) -> Pong:
    """Parse a PONG frame."""
    if len(frame) != HEAD.size + _PONG.size:
        raise WireError(f"PONG frame of {len(frame)} bytes")
    return Pong(*_PONG.unpack_from(frame, HEAD.size))
