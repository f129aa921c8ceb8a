"""The data area of a compressed message: a head of 32 bytes, then the output of the codec.

codec      1   number in `NUMBERS`
form       1   number of the picture's encoding in `FORMS`; 0 for lossless codecs
padding    2
width      4   of the picture; 0 for lossless codecs
height     4
padding    4
size       8   bytes of the data area before
reference  8   sequence of the message that must have been decoded before; 0 for none
"""

from __future__ import annotations

import struct
from typing import Final

from dora_daemon.link.errors import LinkProcessError
from dora_daemon.link.protocol.frames import MAX_CODED
from dora_node_api.frozen import FrozenRecord

_HEAD: Final = struct.Struct("<BBxxII4xQQ")
CODED_AT: Final = _HEAD.size
"""Offset of the codec's bytes."""
NUMBERS: Final = {"jpeg": 1, "h264": 2, "lz4": 3, "zstd": 4}
_NAMES: Final = {number: name for name, number in NUMBERS.items()}
FORMS: Final = ("", "rgb8", "bgr8", "mono8")
PIXEL_BYTES: Final = {"rgb8": 3, "bgr8": 3, "mono8": 1}


class NotDecoded(LinkProcessError):
    """A compressed message must be dropped; the text is the reason."""


class Shape(FrozenRecord):
    """Size and encoding of a picture."""

    width: int
    height: int
    encoding: str

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return self.width * self.height * PIXEL_BYTES[self.encoding]


class CodedHead(FrozenRecord):
    """Head that a decoder reads before the bytes."""

    codec: str
    size: int
    shape: Shape | None = None
    reference: int = 0

    def pack(self) -> bytes:
        """Return the head."""
        shape = self.shape or Shape(width=0, height=0, encoding="")
        form = FORMS.index(shape.encoding)
        numbers = (NUMBERS[self.codec], form, shape.width, shape.height)
        return _HEAD.pack(*numbers, self.size, self.reference)


def read_head(data: memoryview) -> CodedHead:
    """Parse the head of a compressed message. Raises NotDecoded."""
    if len(data) <= CODED_AT:
        raise NotDecoded(f"{len(data)} bytes")
    number, form, width, height, size, reference = _HEAD.unpack_from(data)
    if number not in _NAMES or form >= len(FORMS) or not 0 < size <= MAX_CODED:
        raise NotDecoded(f"codec {number}, encoding {form}, {size} bytes")
    if not form:
        return CodedHead(codec=_NAMES[number], size=size)
    shape = Shape(width=width, height=height, encoding=FORMS[form])
    if shape.nbytes != size:
        raise NotDecoded(f"{size} bytes for {width} x {height} pixels of {shape.encoding}")
    return CodedHead(codec=_NAMES[number], size=size, shape=shape, reference=reference)
