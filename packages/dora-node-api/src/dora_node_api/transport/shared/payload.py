"""A message before it lies in a block, and the content of a block as bytes (`BlockImage`)."""

from __future__ import annotations

from functools import cache
from mmap import mmap
from typing import Any

from dora_node_api.transport.shared.layout import (
    ALIGNMENT,
    BLOCK_HEAD,
    BLOCK_HEAD_SIZE,
    BLOCK_MAGIC,
    PAGE,
    PAGED,
    WORD,
)
from dora_node_api.transport.shared.limits import usable_cores

LARGE_COPY = 16 << 20  # beyond the caches of most processors: two cores copy faster than one
_pack_head = BLOCK_HEAD.pack_into


_unpack_head = BLOCK_HEAD.unpack_from
_pack_stamp = WORD.pack_into
STAMP_AT = 16
"""Offset of the stamp in the head of a block."""


class Payload:
    """Head, descriptor, metadata and data of a message. A plain class: each message has one."""

    __slots__ = (
        *("data", "data_offset", "descriptor", "layout", "length", "metadata", "nbytes"),
        *("null_count", "timestamp_ns", "total"),
    )

    def __init__(
        self,
        descriptor: bytes,
        metadata: bytes,
        layout: int,
        length: int,
        null_count: int,
        nbytes: int,
        data: tuple[tuple[int, Any], ...] = (),
        *,
        timestamp_ns: int = 0,
    ) -> None:
        self.descriptor = descriptor
        self.metadata = metadata
        self.layout = layout
        self.length = length
        self.null_count = null_count
        self.nbytes = nbytes
        """Size of the data area."""
        self.data = data
        """Offsets in the data area with bytes, or with functions that write into a view."""
        self.timestamp_ns = timestamp_ns
        """CLOCK_REALTIME of the send."""
        # Inlined `layout.data_offset`, because each message needs it.
        alignment = ALIGNMENT if nbytes < PAGED else PAGE
        head = BLOCK_HEAD_SIZE + len(descriptor) + len(metadata)
        self.data_offset = head + alignment - 1 & -alignment
        """Offset of the data area in a block."""
        self.total = self.data_offset + nbytes
        """Bytes of a block that the message uses."""

    def resized(self, nbytes: int) -> Payload:
        """Return the same head for a data area of another size."""
        return Payload(
            *(self.descriptor, self.metadata, self.layout, self.length, self.null_count, nbytes),
            timestamp_ns=self.timestamp_ns,
        )

    def write_head(self, memory: mmap | bytearray, at: int, stamp: int) -> None:
        """Write all but the data into a block at `at`."""
        descriptor, metadata = self.descriptor, self.metadata
        _pack_head(
            memory, at, BLOCK_MAGIC, len(descriptor), len(metadata), self.layout,
            stamp, self.timestamp_ns, self.data_offset, self.length, self.null_count,
        )  # fmt: skip
        start = at + BLOCK_HEAD_SIZE
        end = start + len(descriptor)
        memory[start:end] = descriptor
        if metadata:
            memory[end : end + len(metadata)] = metadata

    def write_into(self, memory: mmap | bytearray, at: int = 0, stamp: int = 0) -> None:
        """Write the message into the `total` bytes of a block at `at`."""
        self.write_head(memory, at, stamp)
        base = at + self.data_offset
        for offset, part in self.data:
            start = base + offset
            if callable(part):
                part(memoryview(memory)[start : at + self.total])
            else:
                size = len(part)
                if size < LARGE_COPY:
                    memory[start : start + size] = part
                else:
                    _copy_large(memoryview(memory)[start : start + size], part)


@cache
def two_cores() -> bool:
    """Whether this process may use two processors."""
    return usable_cores() >= 2


def _copy_large(target: memoryview, source: Any) -> None:
    """Copy with two threads if there are two cores; other Python threads run meanwhile."""
    if not two_cores():
        target[:] = memoryview(source).cast("B")
        return
    import pyarrow

    sink = pyarrow.FixedSizeBufferWriter(pyarrow.py_buffer(target))
    sink.set_memcopy_threads(2)
    sink.write(source)
    sink.close()


def image_of(view: memoryview, offset: int, length: int) -> tuple[memoryview, memoryview]:
    """Return the image of the block of ``length`` bytes at ``offset`` of a segment.

    It is the block without the padding between its head, descriptor and metadata and its data area.
    """
    _, described, metadata, _, _, _, data_at, _, _ = _unpack_head(view, offset)
    head_end = offset + BLOCK_HEAD_SIZE + described + metadata
    return view[offset:head_end], view[offset + data_at : offset + length]


class BlockImage:
    """An image whose head was checked, to be written into a block."""

    __slots__ = ("data", "data_at", "head", "total")

    def __init__(self, head: memoryview, data: memoryview, data_at: int) -> None:
        self.head = head
        """Head, descriptor and metadata."""
        self.data = data
        self.data_at = data_at
        """Offset of the data area in a block."""
        self.total = data_at + len(data)
        """Bytes of the block for this payload."""

    def write(self, memory: mmap, at: int, stamp: int) -> None:
        """Write it at ``at`` of a segment."""
        memory[at : at + len(self.head)] = self.head
        _pack_stamp(memory, at + STAMP_AT, stamp)
        memory[at + self.data_at : at + self.total] = self.data
