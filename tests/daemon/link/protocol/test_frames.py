"""Frames between links: round trips, golden bytes and malformed input."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import assume, given, strategies as st

from dora_config.protocol.links import LINK_VERSION
from dora_daemon.link.errors import WireError
from dora_daemon.link.protocol import frames, hello
from dora_daemon.link.streams.validation import problem_with
from dora_node_api.data import arrow
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.payload import Payload

NUMBERS = st.integers(0, (1 << 62) - 1)
HEAD = frames.head(frames.FrameKind.DATA, 7, 9, stream=3, flags=3)
READERS = (
    *(frames.read_head, frames.read_data, frames.read_chunk, frames.read_lifecycle),
    *(frames.read_images_ack, frames.read_image, frames.read_low_latency),
    *(frames.read_acks, frames.read_ping, frames.read_pong),
)


def parts_of(array: pa.Array, metadata: bytes = b"") -> tuple[Payload, bytes]:
    """Return a message and its data area."""
    payload = arrow.encode(array)
    memory = bytearray(payload.total)
    payload.write_into(memory)
    parts = Payload(
        payload.descriptor, metadata, payload.layout, payload.length, payload.null_count,
        payload.nbytes, timestamp_ns=1_700_000_000_000_000_000,
    )  # fmt: skip
    return parts, bytes(memory[payload.data_offset :])


@given(NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=100), st.binary(max_size=50))
def test_a_message_is_read_as_written(
    first: int, second: int, sent: int, metadata: bytes, descriptor: bytes
) -> None:
    previous, sequence = sorted((first, second))
    if previous == sequence:
        previous -= 1
    assume(previous >= 0)
    parts = Payload(descriptor, metadata, 1, 5, 2, 20, timestamp_ns=3)
    frame = frames.data_head(HEAD, sequence, previous, sent, parts) + b"0123456789"
    data = frames.read_data(frame)
    assert frames.read_head(frame) == (5, 3, 3, 7, 9)
    assert (data.sequence, data.previous, data.sent_ns, data.flags) == (sequence, previous, sent, 3)
    assert bytes(data.data) == b"0123456789"
    assert not data.whole
    for name in ("descriptor", "metadata", "layout", "length", "null_count", "nbytes"):
        assert getattr(data.parts, name) == getattr(parts, name)


@given(NUMBERS.filter(bool), st.text(max_size=200), st.sampled_from(list(RecordKind)[1:]))
def test_lifecycle_events_are_read_as_written(sequence: int, error: str, kind: RecordKind) -> None:
    read = frames.read_lifecycle(HEAD + frames.lifecycle_body(sequence, sequence - 1, kind, error))
    assert (read.sequence, read.previous, read.kind) == (sequence, sequence - 1, kind)
    assert read.error == error.encode("utf-8", "replace").decode()


@given(st.lists(st.tuples(st.integers(0, (1 << 32) - 1), NUMBERS), max_size=20), NUMBERS)
def test_acknowledgements_and_pings(acks: list[tuple[int, int]], now: int) -> None:
    assert list(frames.read_acks(HEAD + frames.acks_body(acks))) == acks
    assert frames.read_ping(HEAD + frames.ping_body(now, acks)) == (now, acks)
    assert frames.read_pong(HEAD + frames.pong_body(now, 2, 3)) == frames.Pong(now, 2, 3)


@given(st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=40)), max_size=10), NUMBERS)
def test_images_are_read_as_written(images: list[tuple[int, bytes]], acknowledged: int) -> None:
    frame = frames.images_head(7, 9, (2, acknowledged))
    for number, (stream, image) in enumerate(images):
        frame += frames.image_head(stream, number + 1, number, 5, 3, len(image)) + image
    assert frames.read_head(frame) == (9, 0, 0, 7, 9)
    assert frames.read_images_ack(frame) == (2, acknowledged)
    groups = list(frames.read_images(frame))
    assert all(first[0] != second[0] for first, second in itertools.pairwise(groups))
    found = [(stream, *image) for stream, group in groups for image in group]
    assert [(each[0], frame[each[5] : each[6]]) for each in found] == images
    assert [each[1:5] for each in found] == [(n + 1, n, 5, 3) for n in range(len(images))]


@given(st.integers(1, 9), NUMBERS.filter(bool), st.integers(0, 3), st.binary(max_size=20), NUMBERS)
def test_a_single_image_is_read_as_written(
    stream: int, sequence: int, flags: int, image: bytes, acknowledged: int
) -> None:
    head = frames.single_image_head(
        7, 9, (4, acknowledged), stream, sequence, sequence - 1, 5, flags
    )
    frame = head + image
    assert frames.read_head(frame) == (12, flags, stream, 7, 9)
    *ack, (*about, start, end) = frames.read_image(frame)
    assert ack == [4, acknowledged]
    assert about == [sequence, sequence - 1, 5, flags]
    assert frame[start:end] == image
    with pytest.raises(WireError):
        frames.read_image(head[:-1])


@given(NUMBERS, st.integers(0, frames.MAX_MESSAGE))
def test_chunks_are_read_as_written(sequence: int, offset: int) -> None:
    head = frames.head(frames.FrameKind.CHUNK, 7, 9, stream=3)
    frame = frames.chunk_head(head, sequence, offset) + b"x"
    assert frame[frames.CHUNK_AT :] == b"x"
    assert frames.read_chunk(frame) == (sequence, offset)


@given(st.binary(max_size=10), st.binary(max_size=300), st.integers(frames.HEAD.size + 10, 120))
def test_a_frame_in_parts_is_read_as_a_whole(begin: bytes, rest: bytes, most: int) -> None:
    assume(most > frames.HEAD.size + len(begin))
    cut = frames.parts_of(5, begin, rest, 7, 9, most)
    parts = frames.FrameJoiner()
    parts.add(cut[0])  # the connection broke here
    for part in cut:
        kind, _, _, sender, receiver = frames.read_head(part)
        assert (kind, sender, receiver) == (frames.FrameKind.PART, 7, 9)
        assert len(part) <= most
    assert [parts.add(part) for part in cut] == [None] * (len(cut) - 1) + [begin + rest]


def test_parts_of_two_connections_do_not_mix() -> None:
    parts = frames.FrameJoiner()
    old = frames.parts_of(1, b"", b"a" * 50, 7, 9, 38)
    new = frames.parts_of(2, b"", b"b" * 50, 7, 9, 38)
    assert len(old) == len(new) == 4
    assert parts.add(old[1]) is None, "its first part was lost"
    mixed = [old[0], old[1], new[0], old[2], new[1], old[3], new[2], old[3], new[3]]
    assert [found for part in mixed if (found := parts.add(part))] == [b"b" * 50]
    assert parts.add(new[3]) is None, "a repetition"


def test_a_frame_in_too_many_parts_is_refused() -> None:
    parts = frames.FrameJoiner()
    cut = frames.parts_of(5, b"", bytes(frames.MAX_PARTED + 1), 7, 9, 1000)
    with pytest.raises(WireError):
        list(map(parts.add, cut))


def test_images_before_a_malformed_one_are_read() -> None:
    frame = frames.images_head(7, 9, (0, 0)) + frames.image_head(1, 1, 0, 5, 0, 1) + b"x"
    reader = frames.read_images(frame + frames.image_head(1, 2, 1, 5, 0, 100))
    [(stream, [image])] = [next(reader)]
    assert (stream, image[0]) == (1, 1)
    with pytest.raises(WireError):
        next(reader)


def test_an_unknown_layout_is_refused() -> None:
    frame = frames.data_head(HEAD, 5, 4, 1, Payload(b"", b"", 1 << 32, 5, 0, 20, timestamp_ns=3))
    with pytest.raises(WireError, match="unknown layout"):
        frames.read_data(frame)


@given(st.binary(max_size=300))
def test_readers_raise_nothing_but_wire_errors(garbage: bytes) -> None:
    for reader in READERS:
        for frame in (garbage, HEAD + garbage):
            with suppress(WireError):
                reader(frame)
    with suppress(WireError):
        hello.decode(garbage)
    with suppress(WireError):
        list(frames.read_images(HEAD + garbage))


@given(st.data())
def test_a_frame_with_bytes_changed_is_refused_or_read(data: st.DataObject) -> None:
    parts, body = parts_of(pa.array(["a", None, "bcd"]), encode_metadata({"x": 1}))
    frame = bytearray(frames.data_head(HEAD, 5, 4, 1, parts) + body)
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(WireError):
        read = frames.read_data(bytes(frame))
        if read.whole:
            problem_with(read.parts, read.data)


GOLDEN = {
    "head": (HEAD, "0503030000000700000000000000" "0900000000000000"),
    "data": (
        frames.data_head(b"", 5, 4, 3, Payload(b"de", b"m", 1, 2, 0, 16, timestamp_ns=6)),
        "05000000000000000400000000000000030000000000000006000000000000000100000000000000"
        "0200000000000000000000000000000010000000000000000200000001000000" "64656d",
    ),
    "chunk": (frames.chunk_head(b"", 5, 256), "05000000000000000001000000000000"),
    "lifecycle": (
        frames.lifecycle_body(5, 4, RecordKind.NODE_FAILED, "x"),
        "050000000000000004000000000000000300000000000000" "78",
    ),
    "images": (
        frames.images_head(7, 9, (2, 8)) + frames.image_head(3, 5, 4, 6, 1, 2) + b"ab",
        "09000000000007000000000000000900000000000000" "020000000800000000000000"
        "0300000001000000050000000000000004000000000000000600000000000000" "02000000" "6162",
    ),
    "image": (
        frames.single_image_head(7, 9, (2, 8), 3, 5, 4, 6, 1) + b"ab",
        "0c0103000000" "07000000000000000900000000000000" "020000000800000000000000"
        "050000000000000004000000000000000600000000000000" "6162",
    ),
    "ping": (frames.ping_body(1, [(2, 3)]), "0100000000000000" "020000000300000000000000"),
    "part": (
        frames.parts_of(5, b"", b"abc", 7, 9, 23)[0],
        "0b0105000000" "0700000000000000" "0900000000000000" "61",
    ),
    "low latency": (frames.low_latency_body("a1", wants_answer=True), "016131"),
    "pong": (frames.pong_body(1, 2, 3), "010000000000000002000000000000000300000000000000"),
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_the_bytes_of_a_frame(name: str) -> None:
    """They change only together with `LINK_VERSION`."""
    frame, golden = GOLDEN[name]
    assert LINK_VERSION == (1, 0)
    assert frame.hex() == golden
