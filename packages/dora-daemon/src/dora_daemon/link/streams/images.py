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
"""In the last byte of the time: `plain_image` refuses times of 2^63 ns and more."""


def plain_image(frame: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Return the bytes of an image before its data area, and the bytes of its block.

    None unless it is a valid array of numbers without nulls, without metadata.
    """
    if end - start < BLOCK_HEAD_SIZE:
        return None
    magic, described, meta, form, _, wall, data_at, length, nulls = _unpack_head(frame, start)
    head_end = start + BLOCK_HEAD_SIZE + described
    nbytes = end - head_end
    if (
        meta
        or nulls
        or form != FLAT
        or magic != BLOCK_MAGIC
        or nbytes < 0
        or wall >= _MAX_NUMBER << 1
        or data_at != data_offset(head_end - start, nbytes)
        or plain_size(frame[start + BLOCK_HEAD_SIZE : head_end], length) != nbytes
    ):
        return None
    return head_end - start, data_at + nbytes


class PlainHead:
    """Head of the last plain image of an output; its next message usually has the same one."""

    __slots__ = ("after", "before", "head", "size", "total")

    def __init__(self) -> None:
        self.size = -1
        """Bytes of the image; -1 before the first one."""
        self.head = 0
        """Bytes of the image before its data area."""
        self.total = 0
        """Bytes of its block."""
        self.before = b""
        """Its bytes up to the stamp, which differs, as the time of the send does."""
        self.after = b""
        """Its bytes from there to the data area."""

    def check(self, frame: bytes, start: int, end: int) -> bool:
        """Return whether the image between ``start`` and ``end`` is plain, as `plain_image`."""
        if (
            end - start == self.size
            and frame[start : start + STAMP_AT] == self.before
            and frame[start + _AFTER_WALL : start + self.head] == self.after
            and frame[start + _AFTER_WALL - 1] < _HIGHEST_BIT
        ):
            return True
        plain = plain_image(frame, start, end)
        if plain is None:
            return False
        self.head, self.total = plain
        self.size = end - start
        self.before = frame[start : start + STAMP_AT]
        self.after = frame[start + _AFTER_WALL : start + self.head]
        return True


class ImageMessage:
    """A small message. Not `Frozen`: one is made for every message."""

    __slots__ = ("flags", "image", "problem", "sent_ns", "size")

    def __init__(self, frame: bytes, start: int, end: int, sent_ns: int, flags: int) -> None:
        """Check the image between ``start`` and ``end``. Raises WireError."""
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
        whole = memoryview(frame)
        self.sent_ns = sent_ns
        self.flags = flags
        self.size: int = nbytes
        self.image = BlockImage(whole[start:head_end], whole[head_end:end], data_at)
        self.problem: str | None = None
        """Why the message must be dropped; None if it is valid."""
        descriptor = frame[start + BLOCK_HEAD_SIZE : middle]
        if meta or nulls or form != FLAT or plain_size(descriptor, length) != nbytes:
            metadata = frame[middle:head_end]
            parts = Payload(descriptor, metadata, form, length, nulls, nbytes)
            self.problem = problem_with(parts, self.image.data)
