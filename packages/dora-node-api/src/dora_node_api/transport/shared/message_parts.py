"""A message taken apart into what another process needs to put the same one together again."""

from __future__ import annotations

from dora_node_api.transport.consumer.delivery import Delivery, Lease
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared import layout

_HEAD = layout.BLOCK_HEAD_SIZE
_data_offset = layout.data_offset


class Parts:
    """All of a message but its data area. Plain: one is made for every message."""

    __slots__ = (
        *("data_offset", "descriptor", "layout", "length", "metadata", "nbytes", "null_count"),
        *("timestamp_ns", "total"),
    )

    def __init__(
        self,
        descriptor: bytes,
        metadata: bytes,
        layout: int,
        length: int,
        null_count: int,
        nbytes: int,
        timestamp_ns: int,
    ) -> None:
        self.descriptor = descriptor
        self.metadata = metadata
        self.layout = layout
        self.length = length
        self.null_count = null_count
        self.nbytes = nbytes
        """Size of the data area."""
        self.timestamp_ns = timestamp_ns
        """CLOCK_REALTIME of the send."""
        self.data_offset = _data_offset(_HEAD + len(descriptor) + len(metadata), nbytes)
        """Where the data area begins in a block."""
        self.total = self.data_offset + nbytes
        """Bytes of a block that the message takes."""


def take_apart(delivery: Delivery) -> tuple[Parts, memoryview]:
    """The parts of a message and its data area, which is valid while the delivery is alive."""
    head, base = delivery._head, delivery._base
    assert head is not None
    _, descriptor_size, metadata_size, array_layout, _, timestamp, data_offset, length, nulls = head
    whole = base.segment.view if isinstance(base, Lease) else memoryview(base or b"")
    start = delivery._offset + layout.BLOCK_HEAD_SIZE
    middle = start + descriptor_size
    parts = Parts(
        bytes(whole[start:middle]),
        bytes(whole[middle : middle + metadata_size]),
        array_layout,
        length,
        nulls,
        delivery.nbytes - data_offset,
        timestamp,
    )
    return parts, delivery.data


def flags_of(receiver: Receiver, delivery: Delivery) -> int:
    """FLAG_PROTECTED and FLAG_FLUSH of the message that ``receiver`` handed out last."""
    flags = layout.FLAG_PROTECTED if delivery.protected else 0
    head = delivery._head
    # The record stays in the receiver's buffer, with its first word zeroed, until the next read.
    for record in (receiver._data_words, receiver._urgent_words):
        if head is not None and record[layout.R_STAMP] == head[4]:
            return layout.unpack_tags(record[layout.R_TAGS])[3]
    return flags
