"""The parts of a message from which another process can rebuild it."""

from __future__ import annotations

from dora_node_api.transport.shared import layout

_HEAD = layout.BLOCK_HEAD_SIZE
_data_offset = layout.data_offset


class Parts:
    """All of a message but its data area. A plain class: one is made for every message."""

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
        """Offset of the data area in a block."""
        self.total = self.data_offset + nbytes
        """Bytes of a block that the message uses."""
