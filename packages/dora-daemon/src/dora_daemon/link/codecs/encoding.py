"""Sending end of a stream: compresses the messages that its codec accepts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from dora_config.dataflow.compression import Compression
from dora_daemon.link.codecs.coded import PIXEL_BYTES, CodedHead, Shape
from dora_daemon.link.protocol.frames import MAX_CODED
from dora_node_api.data import arrow
from dora_node_api.data.metadata import decode_metadata
from dora_node_api.transport.shared.payload import Payload

_KEY_NS: Final = 1_000_000_000
"""Longest time between key frames of h264, in nanoseconds."""


class NotAPicture(Exception):
    """The codec cannot encode a message; the text is the reason."""


class StreamEncoder:
    """Compresses the messages of one stream. Used by one thread at a time."""

    def __init__(
        self,
        compression: Compression,
        note: Callable[[str], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """``note``: report once why messages cross uncompressed."""
        self.compression = compression
        self._note = note
        self._clock = clock
        self._noted = False
        self.uncompressed = ""
        """Why the last message crossed uncompressed; empty also if it would not get smaller."""
        self._jpeg: Any = None
        self._h264: Any = None
        self._key_at = 0
        self._last = 0
        """Sequence of the last picture of h264; 0: the next one is a key frame."""

    def restart(self) -> None:
        """Start with a key frame: earlier pictures may not have arrived."""
        self._h264, self._last = None, 0

    def encode(self, sequence: int, parts: Payload, data: memoryview) -> bytes | None:
        """Return a compressed data area; None: the message crosses uncompressed."""
        codec = self.compression.codec
        try:
            if parts.nbytes > MAX_CODED:
                raise NotAPicture(f"it has more than {MAX_CODED} bytes")
            if self.compression.lossless:
                return self._lossless(codec, data)
            coded = self._picture(sequence, shape_of(parts), data)
            self.uncompressed = ""
            return coded
        except NotAPicture as reason:
            self._warn(f"messages cross uncompressed ({codec}): {reason}")
        except Exception as error:  # noqa: BLE001 - codecs raise many kinds
            self.restart()
            self._warn(f"messages cross uncompressed: {codec} failed: {error!r}"[:400])
        return None

    def _warn(self, text: str) -> None:
        self.uncompressed = text
        if not self._noted:
            self._noted = True
            self._note(text)

    def _lossless(self, codec: str, data: memoryview) -> bytes | None:
        from dora_daemon.link.codecs import lossless

        made = lossless.compress(codec, self.compression.chosen_level, data)
        if len(made) >= len(data):
            return None
        return CodedHead(codec=codec, size=len(data)).pack() + made

    def _picture(self, sequence: int, shape: Shape, data: memoryview) -> bytes:
        if self.compression.codec == "jpeg":
            return CodedHead(codec="jpeg", size=len(data), shape=shape).pack() + self._as_jpeg(
                shape, data
            )
        now = self._clock()
        if self._h264 is None or self._h264.shape != shape:
            from dora_daemon.link.codecs.h264 import H264Encoder

            self._h264 = H264Encoder(shape, self.compression.chosen_quality)
            self._last = 0
        key = not self._last or now - self._key_at >= _KEY_NS
        made: bytes = self._h264.encode(data, key=key)
        if not made:
            raise NotAPicture("the encoder returned nothing")
        if key:
            self._key_at = now
        reference, self._last = (0 if key else self._last), sequence
        head = CodedHead(codec="h264", size=len(data), shape=shape, reference=reference)
        return head.pack() + made

    def _as_jpeg(self, shape: Shape, data: memoryview) -> bytes:
        if self._jpeg is None:
            from dora_daemon.link.codecs.jpeg import JpegEncoder

            self._jpeg = JpegEncoder(self.compression.chosen_quality)
        made: bytes = self._jpeg.encode(shape, data)
        return made


def shape_of(parts: Payload) -> Shape:
    """Return size and encoding of a picture. Raises NotAPicture."""
    numbers = parts.layout == arrow.FLAT and not parts.null_count
    if not numbers or arrow.plain_size(parts.descriptor, parts.length) != parts.length:
        raise NotAPicture("it is not an array of UInt8 without nulls")
    metadata = decode_metadata(parts.metadata) if parts.metadata else {}
    width, height, encoding = (metadata.get(name) for name in ("width", "height", "encoding"))
    if not isinstance(width, int) or not isinstance(height, int) or not min(width, height) > 0:
        raise NotAPicture("its metadata has no `width` and `height`")
    if encoding not in PIXEL_BYTES:
        known = ", ".join(PIXEL_BYTES)
        raise NotAPicture(f"its `encoding` is {str(encoding)[:32]!r}, not one of {known}")
    shape = Shape(width=width, height=height, encoding=encoding)
    if shape.nbytes != parts.nbytes:
        raise NotAPicture(
            f"{parts.nbytes} bytes are not {width} x {height} pixels of {encoding}, which has"
            f" {shape.nbytes}"
        )
    return shape
