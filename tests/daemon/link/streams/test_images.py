"""Images of small messages from another machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pyarrow as pa
import pytest
from daemon.link.protocol.test_frames import parts_of
from hypothesis import given, strategies as st

from dora_daemon.link.errors import WireError
from dora_daemon.link.streams.images import ImageMessage, ImageReader
from dora_node_api.data.metadata import encode_metadata
from dora_node_api.transport.shared.layout import BLOCK_HEAD, BLOCK_HEAD_SIZE, BLOCK_MAGIC

ARRAYS = [
    pa.array([1, 2, 3]), pa.array([1, None]), pa.array(["a", "bc"]), pa.array([], pa.int8()),
    pa.array([0] * 5000), pa.nulls(3),
]  # fmt: skip


def image_of(array: pa.Array, metadata: bytes = b"", changes: Mapping[str, int] = {}) -> bytes:
    """Return the image of an array, with fields of its head changed."""
    parts, data = parts_of(array, metadata)
    fields = {
        "magic": BLOCK_MAGIC, "described": len(parts.descriptor), "metadata": len(metadata),
        "layout": parts.layout, "stamp": 0, "wall": parts.timestamp_ns,
        "data_at": parts.data_offset, "length": parts.length, "nulls": parts.null_count,
    } | dict(changes)  # fmt: skip
    head = BLOCK_HEAD.pack(*fields.values()).ljust(BLOCK_HEAD_SIZE, b"\0")
    return head + parts.descriptor + metadata + data


def read(image: bytes) -> ImageMessage:
    return ImageReader().read(b"before" + image + b"after", 6, 6 + len(image), 1, 0)


@pytest.mark.parametrize("metadata", [b"", encode_metadata({"a": 1})], ids=["plain", "metadata"])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.type}-{len(array)}")
def test_a_valid_image_is_written_as_the_block_it_was(array: pa.Array, metadata: bytes) -> None:
    parts, data = parts_of(array, metadata)
    message = read(image_of(array, metadata))
    assert message.problem is None
    assert message.total == parts.total
    block = bytearray(message.total + 64)
    message.write(block, 64, 77)  # type: ignore[arg-type]
    assert BLOCK_HEAD.unpack_from(block, 64)[4] == 77
    assert bytes(block[64 + parts.data_offset :]) == data


@pytest.mark.parametrize(
    "changes",
    [
        {"magic": 1}, {"described": 1 << 30}, {"metadata": 1 << 30}, {"data_at": 64},
        {"length": -1}, {"nulls": 4}, {"wall": (1 << 64) - 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_head_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(WireError):
        read(image_of(pa.array([1, 2, 3]), changes=changes))


@pytest.mark.parametrize("changes", [{"length": 4}, {"nulls": 2}, {"layout": 7}], ids=str)
def test_a_contradiction_with_the_data_is_a_problem(changes: dict[str, int]) -> None:
    assert read(image_of(pa.array([1, 2, 3]), changes=changes)).problem is not None


@given(st.data())
def test_changed_bytes_raise_nothing_but_wire_errors(data: st.DataObject) -> None:
    image = bytearray(image_of(pa.array(["a", None, "bcd"]), encode_metadata({"x": 1})))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with suppress(WireError):
        read(bytes(image))


@given(st.data())
def test_a_head_like_the_last_one_is_checked_as_a_new_one(data: st.DataObject) -> None:
    known = ImageReader()
    first = b"frame" + image_of(pa.array(range(3)))
    assert known.read(first + b"next", 5, len(first), 1, 0).problem is None
    changed = bytearray(first + data.draw(st.sampled_from([b"", b"12345678"])))
    for _ in range(data.draw(st.integers(0, 3))):
        # Mostly in the head: stamp and time may differ, and nothing else.
        changed[data.draw(st.integers(5, len(changed) - 1))] = data.draw(st.integers(0, 255))

    def outcome(reader: ImageReader) -> tuple[object, ...]:
        try:
            found = reader.read(bytes(changed), 5, len(changed), 1, 0)
        except WireError as error:
            return (str(error),)
        return found.problem, found.total, found.size, bytes(found.head), bytes(found.data)

    assert outcome(known) == outcome(ImageReader())
