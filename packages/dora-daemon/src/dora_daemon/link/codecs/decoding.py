"""Receiving end of a stream: restores messages, and drops pictures without their reference."""

from __future__ import annotations

from typing import Any

from dora_daemon.link.codecs.coded import CODED_AT, CodedHead, NotDecoded, Shape, read_head


class NoReference(NotDecoded):
    """A picture needs one that was not decoded here; a key frame follows within a second."""


class StreamDecoder:
    """Restores the messages of one stream, in their order."""

    def __init__(self) -> None:
        self._h264: Any = None
        self._last = 0
        """Sequence of the last picture of h264 that was decoded; 0: a key frame must follow."""

    @staticmethod
    def size_of(coded: memoryview) -> int:
        """Return the size of the data area before it was compressed. Raises NotDecoded."""
        return read_head(coded).size

    def decode(self, sequence: int, coded: memoryview, target: memoryview) -> None:
        """Fill the target, which has `size_of` bytes. Raises NotDecoded."""
        head = read_head(coded)
        body = coded[CODED_AT:]
        if head.codec in ("lz4", "zstd"):
            from dora_daemon.link.codecs import lossless

            lossless.decompress(head.codec, body, target)
            return
        if head.shape is None:
            raise NotDecoded("a picture without a size")
        if head.codec == "h264":
            self._decode_h264(sequence, head, head.shape, body, target)
            return
        from dora_daemon.link.codecs import jpeg

        jpeg.decode(head.shape, body, target)

    def _decode_h264(
        self, sequence: int, head: CodedHead, shape: Shape, body: memoryview, target: memoryview
    ) -> None:
        from dora_daemon.link.codecs.h264 import H264Decoder

        if head.reference == 0:
            self._h264 = H264Decoder()
        elif self._h264 is None or head.reference != self._last:
            self._h264, self._last = None, 0
            raise NoReference(f"it needs message {head.reference}, which was not decoded")
        try:
            self._h264.decode(shape, body, target)
        except NotDecoded:
            self._h264, self._last = None, 0
            raise
        self._last = sequence
