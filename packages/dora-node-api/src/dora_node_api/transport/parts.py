"""A message taken apart into what another process needs to put the same one together again."""

from __future__ import annotations

from dora_node_api.frozen import Frozen
from dora_node_api.transport import layout
from dora_node_api.transport.received import Delivery, Lease
from dora_node_api.transport.receiving import Receiver


class Parts(Frozen):
    """All of a message but its data area."""

    descriptor: bytes
    metadata: bytes
    layout: int
    length: int
    null_count: int
    nbytes: int
    """Size of the data area."""
    timestamp_ns: int
    """CLOCK_REALTIME of the send."""

    @property
    def data_offset(self) -> int:
        """Where the data area begins in a block."""
        head = layout.BLOCK_HEAD_SIZE + len(self.descriptor) + len(self.metadata)
        return -(-head // layout.ALIGNMENT) * layout.ALIGNMENT

    @property
    def total(self) -> int:
        """Bytes of a block that the message takes."""
        return self.data_offset + self.nbytes


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
