"""Validation of messages from another machine."""

from __future__ import annotations

import pyarrow as pa
import pytest
from daemon.link.protocol.test_frames import parts_of
from hypothesis import given, strategies as st

from dora_daemon.link.streams.validation import is_plain, problem_with
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.transport.shared.payload import Payload


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, 2, 3]), pa.array([1.5], pa.float32()), pa.array([1, None]),
        pa.array(["a", "bc"]), pa.array([[1], [2, 3]]), pa.nulls(3), pa.array([True, False]),
        pa.array(["a", "b"]).dictionary_encode(), pa.array([], pa.int8()),
    ],
    ids=lambda array: str(array.type),
)  # fmt: skip
def test_valid_arrays_pass(array: pa.Array) -> None:
    parts, body = parts_of(array, encode_metadata({"a": [1, 2]}))
    assert problem_with(parts, body) is None


def test_content_that_could_crash_a_consumer_is_rejected() -> None:
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
def test_validation_never_raises(
    layout: int, length: int, nulls: int, descriptor: bytes, body: bytes
) -> None:
    parts = Payload(descriptor, b"", layout, length, nulls, len(body))
    problem_with(parts, memoryview(body))
