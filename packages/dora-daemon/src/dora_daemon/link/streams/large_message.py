"""Large messages of one stream: compressed, and sent in pieces at the rate of the path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dora_config.dataflow.compression import Compression
from dora_daemon.link.codecs.encoding import StreamEncoder
from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.frames import FrameKind
from dora_daemon.link.protocol.priority import MIDDLE_BYTES, priority_for
from dora_daemon.link.streams.sender_thread import FrameSink
from dora_node_api.transport.consumer.delivery import Delivery

CHUNK: Final = 63 * 1024
"""Bytes of a data area in one frame of a message up to MIDDLE_BYTES. With heads it fits into one
batch of Zenoh (65,535 bytes), so it crosses without fragments, and is copied while the next one is
on its way.
"""
LARGE_CHUNK: Final = 8 * CHUNK
"""Bytes in one frame of a larger message: it fills eight batches."""


class LargeSender:
    """Any thread sets the codec and reads the figures; the stream's thread sends."""

    def __init__(
        self,
        number: int,
        sink: FrameSink,
        *,
        stops: Callable[[], bool],
        note: Callable[[str], None],
    ) -> None:
        """``stops``: returns whether to stop sending the message in this round."""
        self.saved = 0
        """Bytes by which compression made messages smaller."""
        self._number = number
        self._sink = sink
        self._stops = stops
        self._note = note
        self._encoder: StreamEncoder | None = None
        self._coded = 0
        """Last message that was compressed."""

    def compress(self, compression: Compression | None) -> None:
        """Compress messages from now on; None: send them as they are."""
        if compression is None:
            self._encoder = None
        elif self._encoder is None or self._encoder.compression != compression:
            self._encoder = StreamEncoder(compression, self._note)

    @property
    def uncompressed(self) -> str:
        """Why the last message was not compressed although its readers name a codec."""
        return "" if self._encoder is None else self._encoder.uncompressed

    def restart(self) -> None:
        """Begin a round: the receiver may lack the messages to which the next one refers."""
        if self._encoder is not None:
            self._encoder.restart()

    def send(self, delivery: Delivery, previous: int, flags: int) -> bool:
        """Send a message, unless the stream stops; return False without a session."""
        sink, number, stops = self._sink, self._number, self._stops
        receiver = sink.their_link
        parts, data = delivery.take_apart()
        encoder = self._encoder
        coded = encoder and encoder.encode(delivery.sequence, parts, data)
        if coded:
            if delivery.sequence > self._coded:  # not a repetition
                self._coded = delivery.sequence
                self.saved += parts.nbytes - len(coded)
            data, flags = memoryview(coded), flags | frames.FLAG_CODED
            parts.nbytes = len(coded)
        priority = priority_for(parts.nbytes)
        head = frames.head(FrameKind.DATA, sink.link_id, receiver, stream=number, flags=flags)
        begin = frames.data_head(head, delivery.sequence, previous, delivery.sent_ns, parts)
        size = parts.nbytes
        most = LARGE_CHUNK if size > MIDDLE_BYTES else CHUNK
        end = sink.room(min(size, most), stops)
        if not sink.send(priority, b"".join((begin, data[:end])), more=size > end):
            return False
        head = frames.head(FrameKind.CHUNK, sink.link_id, receiver, stream=number)
        while end < size:
            at = end
            end += sink.room(min(size - at, most), stops)
            # A new round sends the whole message again.
            if stops():
                return True
            begin = frames.chunk_head(head, delivery.sequence, at)
            if not sink.send(priority, b"".join((begin, data[at:end])), more=end < size):
                return False
        return True
