"""A receiver that hands out copies of small messages, without decoding them and without leases."""

from __future__ import annotations

import os
import time

from dora_node_api.transport.consumer.delivery import Delivery, Lease
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.layout import (
    BLOCK_HEAD,
    BLOCK_HEAD_SIZE,
    BLOCK_MAGIC,
    RECORD_SIZE,
    RecordKind,
)
from dora_node_api.transport.shared.payload import image_of

MAX_IMAGE = 64 * 1024 + 8192
"""Bytes of a block up to which its message is handed out as an image."""
_unpack_record = layout.RECORD.unpack_from
_unpack_head = BLOCK_HEAD.unpack_from
_readv = os.readv
_CHECK = layout.CHECK
_P_SENT = layout.P_SENT
_C_RECEIVED = layout.C_RECEIVED
_C_LAST_DATA = layout.C_LAST_DATA
_HISTOGRAM = layout.HISTOGRAM
_C_LAST_ARRIVAL_NS = layout.C_LAST_ARRIVAL_NS
_C_BYTES_RECEIVED = layout.C_BYTES_RECEIVED
_C_SETTLED = layout.C_SETTLED
_latency_bucket = layout.latency_bucket
_monotonic_ns = time.monotonic_ns


TakenImage = tuple[int, int, int, bytes, int]
"""Sequence, sent time, flags and image of a message, and the bytes of its block."""


class ImageDelivery:
    """A small message: its image and the fields of its record. Its block is released already."""

    __slots__ = ("flags", "image", "nbytes", "sent_ns", "sequence")

    kind = RecordKind.DATA

    def __init__(self, sequence: int, sent_ns: int, flags: int, image: bytes, nbytes: int) -> None:
        self.sequence = sequence
        self.sent_ns = sent_ns
        self.flags = flags
        """FLAG_PROTECTED and FLAG_FLUSH."""
        self.image = image
        self.nbytes = nbytes
        """Bytes of the block."""


class ImageReceiver(Receiver):
    """Hands out small messages as images, everything else as `Delivery`."""

    def read_only(self) -> TakenImage | None:
        """Read the only message that waits, if it is small and ordinary; then call `settle_only`.

        None otherwise: then call `receive`, which may find the record read already. Raises
        BrokenRecord.
        """
        data = self._data_words
        expected = self._settled + 1
        if (
            self._words[_P_SENT] != expected
            or data[0]
            or self._urgent_words[0]
            or self._backpressure
            or self.forked
        ):
            return None
        # As `_read_data`, without a call.
        try:
            size = _readv(self._data_read, self._data_into)
        except BlockingIOError:
            return None
        if size != RECORD_SIZE:
            self._resynchronise(self._data_read, data, size)
        sequence = data[0]
        if self._fresh_data or data[7] ^ sequence != _CHECK:
            self._count(data, _C_LAST_DATA, layout.F_FLOOR_DATA)
        else:
            words = self._words
            words[_C_LAST_DATA] = sequence
            words[_C_RECEIVED] += 1
        return self._read_image(data) if sequence == expected else None

    def settle_only(self) -> None:
        """Release the block of the message that `read_only` returned, and count the message."""
        self._settle(self._data_words)

    def _hand_out(self, record: memoryview) -> Delivery | ImageDelivery:  # type: ignore[override]
        taken = self._read_image(record)
        if taken is None:
            return super()._hand_out(record)
        self._settle(record)
        return ImageDelivery(*taken)

    def _read_image(self, record: memoryview) -> TakenImage | None:
        """Copy a small message; None if the record has another one, or is broken."""
        sequence, word, offset, length, sent_ns, stamp, tags, _ = _unpack_record(record)
        segment = self._segments.get(word)
        if (
            length > MAX_IMAGE
            or length < BLOCK_HEAD_SIZE
            or segment is None
            or tags >> 24 & 0xFF
            or sequence <= self._settled
            or offset + length > segment.size
        ):
            return None
        view = segment.view
        magic, described, metadata, _, found, _, data_at, _, _ = _unpack_head(view, offset)
        if found != stamp or magic != BLOCK_MAGIC:
            return None
        head_end = offset + BLOCK_HEAD_SIZE + described + metadata
        image = b"".join((view[offset:head_end], view[offset + data_at : offset + length]))
        return sequence, sent_ns, tags >> 32, image, length


def image_of_delivery(delivery: Delivery) -> bytes:
    """Copy the block of a message; the lease is kept."""
    base = delivery._base
    view = base.segment.view if isinstance(base, Lease) else memoryview(base or b"")
    return image_of(view, delivery._offset, delivery.nbytes)
