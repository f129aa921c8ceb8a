"""Frames between links: what is written is read, and garbage is an error, never a crash."""

from __future__ import annotations

from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dora_daemon.link.errors import WireError
from dora_daemon.link.protocol import frames as wire
from dora_daemon.link.protocol import hello as greeting
from dora_daemon.link.streams.validation import is_plain, problem_with
from dora_node_api.data import arrow
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.message_parts import Parts

NUMBERS = st.integers(0, (1 << 62) - 1)
HEAD = wire.head(wire.FrameKind.DATA, 7, 9, stream=3, flags=3)
READERS = (
    *(wire.read_head, wire.read_data, wire.read_chunk, wire.read_news),
    *(wire.read_acks, wire.read_ping, wire.read_pong),
)


def parts_of(array: pa.Array, metadata: bytes = b"") -> tuple[Parts, bytes]:
    """A message as it goes over the wire, and its data area."""
    payload = arrow.encode(array)
    memory = bytearray(payload.total)
    payload.write_into(memory)
    parts = Parts(
        payload.descriptor, metadata, payload.layout, payload.length, payload.null_count,
        payload.nbytes, 1_700_000_000_000_000_000,
    )  # fmt: skip
    return parts, bytes(memory[payload.data_offset :])


@given(NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=100), st.binary(max_size=50))
def test_a_message_is_read_as_it_was_written(
    first: int, second: int, sent: int, metadata: bytes, descriptor: bytes
) -> None:
    previous, sequence = sorted((first, second))
    if previous == sequence:
        previous -= 1
    assume(previous >= 0)
    parts = Parts(descriptor, metadata, 1, 5, 2, 20, 3)
    frame = wire.data_head(HEAD, sequence, previous, sent, parts) + b"0123456789"
    head, data = wire.read_head(frame), wire.read_data(frame)
    assert (head.kind, head.stream, head.sender, head.receiver) == (5, 3, 7, 9)
    assert (data.sequence, data.previous, data.sent_ns, data.flags) == (sequence, previous, sent, 3)
    assert bytes(data.data) == b"0123456789"
    assert not data.whole
    for name in ("descriptor", "metadata", "layout", "length", "null_count", "nbytes"):
        assert getattr(data.parts, name) == getattr(parts, name)


@given(NUMBERS.filter(bool), st.text(max_size=200), st.sampled_from(list(RecordKind)[1:]))
def test_news_are_read_as_they_were_written(sequence: int, error: str, kind: RecordKind) -> None:
    read = wire.read_news(HEAD + wire.news_body(sequence, sequence - 1, kind, error))
    assert (read.sequence, read.previous, read.kind) == (sequence, sequence - 1, kind)
    assert read.error == error.encode("utf-8", "replace").decode()


@given(st.lists(st.tuples(st.integers(0, (1 << 32) - 1), NUMBERS), max_size=20), NUMBERS)
def test_acknowledgements_and_pings(acks: list[tuple[int, int]], now: int) -> None:
    assert list(wire.read_acks(HEAD + wire.acks_body(acks))) == acks
    assert wire.read_ping(HEAD + wire.ping_body(now, acks)) == (now, acks)
    assert wire.read_pong(HEAD + wire.pong_body(now, 2, 3)) == wire.Pong(now, 2, 3)


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_frames_that_go_together(frames: list[bytes]) -> None:
    assert list(wire.read_together(HEAD + wire.together_body(frames))) == frames


def test_a_layout_that_no_block_can_hold_is_refused() -> None:
    frame = wire.data_head(HEAD, 5, 4, 1, Parts(b"", b"", 1 << 32, 5, 0, 20, 3))
    with pytest.raises(WireError, match="unknown layout"):
        wire.read_data(frame)


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_read_and_nothing_else(garbage: bytes) -> None:
    for reader in READERS:
        for frame in (garbage, HEAD + garbage):
            with suppress(WireError):
                reader(frame)
    with suppress(WireError):
        greeting.decode(garbage)
    with suppress(WireError):
        list(wire.read_together(HEAD + garbage))


@given(st.data())
def test_a_frame_with_bytes_changed_is_refused_or_read(data: st.DataObject) -> None:
    parts, body = parts_of(pa.array(["a", None, "bcd"]), encode_metadata({"x": 1}))
    frame = bytearray(wire.data_head(HEAD, 5, 4, 1, parts) + body)
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(WireError):
        read = wire.read_data(bytes(frame))
        if read.whole:
            problem_with(read.parts, read.data)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, 2, 3]), pa.array([1.5], pa.float32()), pa.array([1, None]),
        pa.array(["a", "bc"]), pa.array([[1], [2, 3]]), pa.nulls(3), pa.array([True, False]),
        pa.array(["a", "b"]).dictionary_encode(), pa.array([], pa.int8()),
    ],
    ids=lambda array: str(array.type),
)  # fmt: skip
def test_arrays_pass_validation(array: pa.Array) -> None:
    parts, body = parts_of(array, encode_metadata({"a": [1, 2]}))
    assert problem_with(parts, body) is None


def test_what_could_end_a_consumer_does_not_pass() -> None:
    parts, body = parts_of(pa.array(["hello", "world"]))
    offsets = bytearray(body)
    offsets[4:8] = (1 << 30).to_bytes(4, "little")
    assert problem_with(parts, bytes(offsets)) is not None
    parts, body = parts_of(pa.array([1, 2, 3]))
    assert is_plain(parts)
    parts.length = 1 << 40
    assert not is_plain(parts)
    assert problem_with(parts, body) is not None
    parts, body = parts_of(pa.array(["x", "y"]).dictionary_encode())
    broken = bytearray(body)
    for at in range(len(broken) - 200, len(broken)):
        broken[at] ^= 0x5A
    assert problem_with(parts, bytes(broken)) is not None or body == bytes(broken)
    parts, body = parts_of(pa.array([1]), b"not metadata")
    assert problem_with(parts, body) is not None


@given(
    st.integers(0, 255), st.integers(0, 1 << 40), st.integers(-1, 100), st.binary(max_size=80),
    st.binary(max_size=300),
)  # fmt: skip
def test_validation_answers_whatever_comes(
    layout: int, length: int, nulls: int, descriptor: bytes, body: bytes
) -> None:
    parts = Parts(descriptor, b"", layout, length, nulls, len(body), 0)
    problem_with(parts, memoryview(body))
