"""Forwarder of images: small messages of another machine, written without decoding them."""

from __future__ import annotations

import time

from dora_node_api.transport.producer.blocks import Hold
from dora_node_api.transport.producer.relay import Forwarder, _note
from dora_node_api.transport.shared import layout
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
        known = self._outputs.get(output)
        if known is None or not known.routes:
            return True
        if known.backpressure and not self.has_room(output):
            return False
        self._check()
        total = image.total
        with self._lock:
            self._enter()
            for route in known.routes:
                if route.order:
                    route.collect(self.pool)
            try:
                block = self.pool.take(total)
            except MemoryError:
                block = None
            done = block is not None
            if block is not None:
                image.write(block.segment.memory, block.segment.view, block.offset, block.stamp)
                for route in known.routes:
                    own = route.words
                    if own[layout.P_SOURCE] >= source:
                        continue
                    own[layout.P_SOURCE_NEXT] = source
                    if self._push(route, block, total, sent_ns, flags):
                        _note(own, source)
                    else:
                        done = False  # a pipe that is smaller than its bound
                    if route.drop_news:
                        self._drops.append(route)
                if not block.refs:
                    self.pool.give(block)
                if _monotonic_ns() > self._trim_at:
                    self._trim(_monotonic_ns())
            self._inside = False
        if self._drops:
            self._report_drops()
        return done
