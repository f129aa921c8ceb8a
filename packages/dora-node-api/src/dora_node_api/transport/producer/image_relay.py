"""Forwarder of images: small messages of another machine, written without decoding them."""

from __future__ import annotations

import time

from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.relay import Forwarder
from dora_node_api.transport.shared.block_image import BlockImage

_monotonic_ns = time.monotonic_ns


class ImageForwarder(Forwarder):
    """Sends images of remote sources. One thread at a time for each output."""

    def fill_image(self, hold: Hold, image: BlockImage) -> None:
        """Write an image into a block."""
        block = hold.block
        assert block is not None
        image.write(block.segment.memory, block.segment.view, block.offset, block.stamp)

    def forward_image(
        self, output: str, image: BlockImage, *, source: int, sent_ns: int, flags: int
    ) -> bool:
        """Put an image into every queue, if neither a queue nor memory makes it wait.

        False when something would: then call `forward`, which skips the queues that have it.
        """
        if not self._table.of(output):
            return True
        if not self.has_room(output):
            return False
        self._check()
        total = image.total
        with self._lock, self._integrity:
            self._take_back()
            block = self._take_at_once(output, total)
            if block is None:
                return False
            image.write(block.segment.memory, block.segment.view, block.offset, block.stamp)
            done = self._push_to_all(output, block, total, source, sent_ns, flags)
            if not block.refs:
                self.pool.give(block)
            if _monotonic_ns() > self._trim_at:
                self._trim(_monotonic_ns())
        if self._drops:
            self._report_drops()
        return done
