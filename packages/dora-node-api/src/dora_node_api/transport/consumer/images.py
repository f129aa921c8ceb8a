"""A receiver that hands out copies of small messages, without decoding them and without leases."""

from __future__ import annotations

import time

from dora_node_api.transport.consumer.delivery import Delivery, Lease
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.block_image import image_of, stamp_of
from dora_node_api.transport.shared.layout import RecordKind

LARGEST_IMAGE = 64 * 1024 + 8192
"""Bytes of a block up to which its message is handed out as an image."""
_unpack_record = layout.RECORD.unpack_from
_latency_bucket = layout.latency_bucket
_monotonic_ns = time.monotonic_ns


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

    def _hand_out(self, record: memoryview) -> Delivery | ImageDelivery:  # type: ignore[override]
        sequence, word, offset, length, sent_ns, stamp, tags, _ = _unpack_record(record)
        segment = self._segments.get(word)
        if (
            length > LARGEST_IMAGE
            or length < layout.BLOCK_HEAD_SIZE
            or segment is None
            or tags >> 24 & 0xFF
            or sequence <= self._settled
            or offset + length > segment.size
        ):
            return super()._hand_out(record)
        image = image_of(segment.view, offset, length)
        if stamp_of(image) != stamp:
            return super()._hand_out(record)  # reports the record as broken
        slot = tags & 0xFFFF
        self._account.leases.pop(slot, None)
        now = _monotonic_ns()
        own = self._words
        own[layout.HISTOGRAM + _latency_bucket(now - sent_ns)] += 1
        own[layout.C_LAST_ARRIVAL_NS] = now
        own[layout.C_BYTES_RECEIVED] += length
        if slot < self._most_slots:
            self._account.ledger[slot] = tags >> 16 & 0xFF
        own[layout.C_SETTLED] = sequence
        self._settled = sequence
        record[0] = 0
        return ImageDelivery(sequence, sent_ns, tags >> 32, image, length)


def image_of_delivery(delivery: Delivery) -> bytes:
    """Copy the block of a message; the lease is kept."""
    base = delivery._base
    view = base.segment.view if isinstance(base, Lease) else memoryview(base or b"")
    return image_of(view, delivery._offset, delivery.nbytes)
