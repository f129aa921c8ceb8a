"""Small messages that arrive as images: their heads are checked before they are stored."""

from __future__ import annotations

from typing import Final

from dora_daemon.link.errors import WireError
from dora_daemon.link.streams.validation import plain_size, problem_with
from dora_node_api.data.arrow import FLAT
from dora_node_api.transport.shared.block_image import BlockImage
from dora_node_api.transport.shared.layout import (
    BLOCK_HEAD,
    BLOCK_HEAD_SIZE,
    BLOCK_MAGIC,
    data_offset,
)
from dora_node_api.transport.shared.payload import Payload

_LARGEST_NUMBER: Final = 1 << 62
_unpack_head = BLOCK_HEAD.unpack_from


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
        or wall >= _LARGEST_NUMBER << 1
        or data_at != data_offset(head_end - start, nbytes)
        or plain_size(frame[start + BLOCK_HEAD_SIZE : head_end], length) != nbytes
    ):
        return None
    return head_end - start, data_at + nbytes


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
            or not 0 <= length < _LARGEST_NUMBER
            or not -1 <= nulls <= length
            or wall >= _LARGEST_NUMBER << 1
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
