"""States in memory files: bytes and Arrow arrays."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa
import pytest

from dora_node_api.data.saved_state import read_state, write_state
from dora_node_api.errors import InvalidData
from dora_node_api.testing import MockNode


def round_trip(state: Any) -> Any:
    descriptor, form, size = write_state(state)
    try:
        return read_state(descriptor, form, size)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("state", [b"", b"abc", bytearray(b"xy"), memoryview(b"z" * 100_000)])
def test_buffers_come_back_as_bytes(state: Any) -> None:
    assert round_trip(state) == bytes(state)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, 2, None]),
        pa.array([{"a": [1.5], "b": "x"}, None]),
        pa.array([], pa.string()),
        pa.array(["x", "y", "x"]).dictionary_encode(),
        pa.array([1, 2, 3]).slice(1),
    ],
)
def test_arrow_arrays_come_back(array: pa.Array) -> None:
    assert round_trip(array).equals(array)


@pytest.mark.parametrize("state", ["text", 7, None, {"a": 1}])
def test_other_types_are_refused(state: Any) -> None:
    with pytest.raises(InvalidData, match="bytes, another buffer or a pyarrow array"):
        write_state(state)


@pytest.mark.parametrize(("form", "size"), [("bytes", 9), ("json", 4), ("arrow", 4)])
def test_a_file_that_is_not_a_state_is_refused(form: str, size: int) -> None:
    descriptor, _, _ = write_state(b"abcd")
    try:
        with pytest.raises(InvalidData):
            read_state(descriptor, form, size)
    finally:
        os.close(descriptor)


def test_a_mock_node_has_a_state() -> None:
    node = MockNode(state=b"before")
    assert node.load_state() == b"before"
    node.save_state(b"after")
    assert node.saved_state == b"after"
