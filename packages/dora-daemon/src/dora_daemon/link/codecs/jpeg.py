"""JPEG with Pillow."""

from __future__ import annotations

import io
import os
import struct
from typing import Any, Final

from PIL import Image, ImageFile

from dora_daemon.link.codecs.coded import NotDecoded, Shape

_RAW_MODES: Final = {"rgb8": ("RGB", "RGB"), "bgr8": ("RGB", "BGR"), "mono8": ("L", "L")}
"""Mode of the image, and mode of its bytes in memory."""


class JpegEncoder:
    """Encodes pictures one by one into a file in memory.

    Into a file, Pillow encodes without the GIL; into a `BytesIO` it keeps the GIL.
    """

    def __init__(self, quality: int) -> None:
        self._quality = quality
        self._file = open(os.memfd_create("dora-jpeg"), "r+b", buffering=0)  # noqa: SIM115

    def encode(self, shape: Shape, pixels: memoryview) -> bytes:
        """Return the file of a picture."""
        mode, raw = _RAW_MODES[shape.encoding]
        arguments: Any = (pixels, "raw", raw, 0, 1)
        image = Image.frombuffer(mode, (shape.width, shape.height), *arguments)
        self._file.seek(0)
        self._file.truncate()
        image.save(self._file, "JPEG", quality=self._quality)
        return os.pread(self._file.fileno(), self._file.tell(), 0)

    def __del__(self) -> None:
        self._file.close()


def decode(shape: Shape, coded: memoryview, target: memoryview) -> None:
    """Fill the target with the pixels. Raises NotDecoded."""
    mode, raw = _RAW_MODES[shape.encoding]
    try:
        with Image.open(io.BytesIO(coded), formats=("JPEG",)) as image:
            if image.size != (shape.width, shape.height) or image.mode != mode:
                found = f"{image.width} x {image.height} pixels of {image.mode}"
                raise NotDecoded(f"the JPEG has {found}")
            assert not ImageFile.LOAD_TRUNCATED_IMAGES
            target[:] = image.tobytes("raw", raw)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise NotDecoded(f"Pillow cannot decode it: {str(error)[:200]}") from error
    except Image.DecompressionBombError as error:
        raise NotDecoded(str(error)) from error
