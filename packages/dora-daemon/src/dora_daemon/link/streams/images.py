"""Small messages that arrive as images: their heads are checked before they are stored."""

from __future__ import annotations

from typing import Final

from dora_daemon.link.errors import WireError
from dora_daemon.link.streams.validation import problem_with
from dora_node_api.data.arrow import FLAT, plain_size
from dora_node_api.transport.shared.layout import (
    BLOCK_HEAD,
    BLOCK_HEAD_SIZE,
    BLOCK_MAGIC,
    BLOCK_WALL,
    data_offset,
)
from dora_node_api.transport.shared.payload import STAMP_AT, BlockImage, Payload

_MAX_NUMBER: Final = 1 << 62
_unpack_head = BLOCK_HEAD.unpack_from
_AFTER_WALL: Final = BLOCK_WALL + 8
_HIGHEST_BIT: Final = 128
"""Highest bit in the last byte of the time: times of 2^63 ns and more are refused."""


class ImageMessage(BlockImage):
    """A small message. Not `Frozen`: one is made for every message."""

    __slots__ = ("flags", "problem", "sent_ns", "size")

    def __init__(
        self,
        frame: bytes,
        start: int,
        middle: int,
        end: int,
        data_at: int,
        sent_ns: int,
        flags: int,
    ) -> None:
        """``start``, ``middle``, ``end``: of the image and its data area in the frame."""
        whole = memoryview(frame)
        self.head = whole[start:middle]
        self.data = whole[middle:end]
        self.data_at = data_at
        self.size = size = end - middle
        self.total = data_at + size
        self.sent_ns = sent_ns
        self.flags = flags
        self.problem: str | None = None
        """Why the message must be dropped; None if it is valid."""


class ImageReader:
    """Reads the images of one output. Most have the head of the one before."""

    def __init__(self) -> None:
        self._size = -1
        """Bytes of the last image of numbers without nulls and metadata; -1 before the first."""
        self._head = 0
        """Bytes of that image before its data area."""
        self._data_at = 0
        self._before = b""
        """Bytes of that image before its stamp, which differs in each image, as the time of the
        send does."""
        self._after = b""
        """Bytes of that image between the stamp and the data area."""

    def read(self, frame: bytes, start: int, end: int, sent_ns: int, flags: int) -> ImageMessage:
        """Check the image between ``start`` and ``end``. Raises WireError."""
        if (
            end - start == self._size
            and frame[start : start + STAMP_AT] == self._before
            and frame[start + _AFTER_WALL : start + self._head] == self._after
            and frame[start + _AFTER_WALL - 1] < _HIGHEST_BIT
        ):
            middle = start + self._head
            return ImageMessage(frame, start, middle, end, self._data_at, sent_ns, flags)
        return self._read_new(frame, start, end, sent_ns, flags)

    def _read_new(
        self, frame: bytes, start: int, end: int, sent_ns: int, flags: int
    ) -> ImageMessage:
        if end - start < BLOCK_HEAD_SIZE:
            raise WireError(f"image of {end - start} bytes")
        magic, described, meta, form, _, wall, data_at, length, nulls = _unpack_head(frame, start)
        middle = start + BLOCK_HEAD_SIZE + described
        head_end = middle + meta
        nbytes = end - head_end
        if (
            magic != BLOCK_MAGIC
            or nbytes < 0
            or data_at != data_offset(head_end - start, nbytes)
            or not 0 <= length < _MAX_NUMBER
            or not -1 <= nulls <= length
            or wall >= _MAX_NUMBER << 1
        ):
            raise WireError("image with a malformed head")
        message = ImageMessage(frame, start, head_end, end, data_at, sent_ns, flags)
        descriptor = frame[start + BLOCK_HEAD_SIZE : middle]
        if meta or nulls or form != FLAT or plain_size(descriptor, length) != nbytes:
            parts = Payload(descriptor, frame[middle:head_end], form, length, nulls, nbytes)
            message.problem = problem_with(parts, message.data)
            return message
        self._size, self._head, self._data_at = end - start, head_end - start, data_at
        self._before = frame[start : start + STAMP_AT]
        self._after = frame[start + _AFTER_WALL : head_end]
        return message
