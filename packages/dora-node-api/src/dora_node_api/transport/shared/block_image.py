"""The content of a block as bytes: how a small message crosses to another machine undecoded.

An image is the block's head, descriptor and metadata, and then its data area. The gap between the
two is left out: it holds bytes of earlier messages.
"""

from __future__ import annotations

from mmap import mmap

from dora_node_api.transport.shared.layout import BLOCK_HEAD, BLOCK_HEAD_SIZE, WORD

_unpack_head = BLOCK_HEAD.unpack_from
_pack_stamp = WORD.pack_into
STAMP_AT = 16


def image_of(view: memoryview, offset: int, length: int) -> bytes:
    """Return the image of the block of ``length`` bytes at ``offset`` of a segment."""
    _, described, metadata, _, _, _, data_at, _, _ = _unpack_head(view, offset)
    head_end = offset + BLOCK_HEAD_SIZE + described + metadata
    return b"".join((view[offset:head_end], view[offset + data_at : offset + length]))


class BlockImage:
    """An image whose head was checked, to be written into a block."""

    __slots__ = ("data", "data_at", "head", "total")

    def __init__(self, head: memoryview, data: memoryview, data_at: int) -> None:
        self.head = head
        """Head, descriptor and metadata."""
        self.data = data
        self.data_at = data_at
        """Where the data area begins in a block."""
        self.total = data_at + len(data)
        """Bytes of a block that it takes."""

    def write(self, memory: mmap, at: int, stamp: int) -> None:
        """Write it at ``at`` of a segment."""
        memory[at : at + len(self.head)] = self.head
        _pack_stamp(memory, at + STAMP_AT, stamp)
        memory[at + self.data_at : at + self.total] = self.data
