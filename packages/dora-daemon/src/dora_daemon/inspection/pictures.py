"""Small pictures of messages that are images, for viewers; uses Arrow.

An image has the metadata `encoding`, and `width` and `height` unless it is compressed. Raw and
large compressed images become small JPEGs. Pillow is imported for the first image, because most
inspectors have none.
"""

from __future__ import annotations

import base64
import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from dora_node_api.data.visual_kinds import IMAGE_FIELDS

if TYPE_CHECKING:
    from PIL.Image import Image

COMPRESSED: Final[Mapping[str, str]] = {
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
}
"""Media type of each compressed encoding."""
MAX_PIXELS: Final = 1 << 26
"""Larger images are not decoded."""
JPEG_QUALITY: Final = 80
"""Percent."""
JPEG_WIDTH: Final = 1280
"""Wider images are reduced before they are compressed."""
JPEG_HEIGHT: Final = 65_000
"""Higher images are reduced, too: Pillow writes at most 65,500 rows."""
SHRINK: Final = 0.7
"""Factor of both sides for each further attempt to stay below the limit."""


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Bytes of a picture."""

    small: int
    """Limit for pictures that are compressed here."""
    whole: int = 0
    """Limit for compressed images that Pillow cannot decode."""


RAW: Final[Mapping[str, tuple[int, str]]] = {
    "rgb8": (3, "RGB"),
    "bgr8": (3, "BGR"),
    "rgba8": (4, "RGBX"),
    "bgra8": (4, "BGRX"),
    "mono8": (1, "L"),
    "8uc1": (1, "L"),
    "8uc3": (3, "BGR"),
}
"""Bytes of a pixel, and the raw mode of Pillow."""
DEPTH: Final[Mapping[str, Any]] = {
    "mono16": pa.uint16(),
    "16uc1": pa.uint16(),
    "32fc1": pa.float32(),
}
"""Little-endian; shown from black for 0 to white for the largest value."""
MIN_DEPTH: Final = 1e-30
"""Depth that is shown as white; smaller values have no reciprocal."""
YUV: Final[Mapping[str, tuple[int, int, int]]] = {
    "yuyv": (0, 1, 3),
    "uyvy": (1, 0, 2),
    "yuv422": (1, 0, 2),
}
"""Two pixels in four bytes: offsets of the first brightness and of the two colours."""


class NotShown(ValueError):
    """An image cannot be shown; the text is the reason."""


@dataclass(frozen=True, slots=True)
class _Picture:
    media: str
    content: bytes
    real: tuple[int, int] = (0, 0)
    """Width and height of a compressed image; 0 if they are unknown."""


def picture(
    array: Any, metadata: Mapping[str, Any], limits: PictureLimits
) -> dict[str, Any] | None:
    """Return a picture as JSON; None: the message is not an image. Raises NotShown."""
    array, metadata = _unpacked(array, metadata)
    encoding = metadata.get("encoding")
    # Detections and captions have the metadata of their image.
    if not isinstance(encoding, str) or types.is_struct(array.type) or _is_text(array.type):
        return None
    width, height = metadata.get("width"), metadata.get("height")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
    name = encoding.lower()
    known = name in COMPRESSED or name in RAW or name in DEPTH or name in YUV
    if not known and size is None:
        return None
    if not known:
        raise NotShown(f'images of the encoding "{encoding[:32]}" are not shown')
    data = _bytes(array)
    if data is None:
        raise NotShown(f"an image needs bytes, not values of the type {str(array.type)[:64]}")
    if name in COMPRESSED:
        made = _compressed(data, COMPRESSED[name], size, limits)
        size = made.real
    else:
        size = _checked(size)
        made = _raw(data, name, size, limits.small)
    return {
        "media": made.media,
        "data": base64.b64encode(made.content).decode(),
        "encoding": encoding[:32],
        "width": size[0],
        "height": size[1],
    }


def _unpacked(array: Any, metadata: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Return pixels and metadata of an image that is a struct, `std/media/v1/Image`."""
    kind = array.type
    if not types.is_struct(kind) or len(array) != 1 or array.null_count:
        return array, metadata
    if not {field.name for field in kind} >= IMAGE_FIELDS:
        return array, metadata
    data = array.field("data")
    if types.is_list(data.type) or types.is_large_list(data.type):
        data = data.flatten()
    given = {name: array.field(name)[0].as_py() for name in IMAGE_FIELDS - {"data"}}
    return data, {**metadata, **given}


def _checked(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise NotShown("the metadata `width` and `height` of this image are missing")
    if min(size) <= 0 or size[0] * size[1] > MAX_PIXELS:
        raise NotShown(f"an image of {size[0]} x {size[1]} pixels is not shown")
    return size


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _bytes(array: Any) -> memoryview | None:
    """Return the bytes of an array of numbers, or of a single binary value, without a copy."""
    kind = array.type
    if array.null_count:
        return None
    if types.is_integer(kind) or types.is_float32(kind):
        width = kind.bit_width // 8
        view = memoryview(array.buffers()[1]).cast("B")
        return view[array.offset * width : (array.offset + len(array)) * width]
    if len(array) == 1 and (types.is_binary(kind) or types.is_large_binary(kind)):
        return memoryview(array[0].as_buffer()).cast("B")
    return None


# ------------------------------------------------------------------------------- compressed


def _compressed(
    data: memoryview, media: str, size: tuple[int, int] | None, limits: PictureLimits
) -> _Picture:
    from PIL import Image

    problem = ""
    try:
        with Image.open(io.BytesIO(data)) as image:
            real = _checked(image.size)
            if len(data) > limits.small:
                return replace(_reduced(image, limits.small), real=real)
            size = size or real
    except NotShown:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        problem = f"; Pillow cannot decode it: {str(error)[:200]}"
    except Image.DecompressionBombError as error:
        raise NotShown(str(error)) from error
    if len(data) > max(limits.small, limits.whole):
        raise NotShown(f"a compressed image of {len(data)} bytes is not shown{problem}")
    return _Picture(media, bytes(data), size or (0, 0))


def _reduced(image: Image, limit: int) -> _Picture:
    # A JPEG is decoded with an eighth, a quarter or half of its pixels if that is enough.
    image.draft("RGB", (JPEG_WIDTH, max(1, JPEG_WIDTH * image.height // image.width)))
    return _jpeg(image.convert("RGB"), limit)


# -------------------------------------------------------------------------------------- raw


def _raw(data: memoryview, name: str, size: tuple[int, int], limit: int) -> _Picture:
    pixels = size[0] * size[1]
    width = DEPTH[name].bit_width // 8 if name in DEPTH else 2 if name in YUV else RAW[name][0]
    if len(data) != pixels * width:
        raise NotShown(
            f"{len(data)} bytes are not an image of {size[0]} x {size[1]} pixels of {name}, which "
            f"has {pixels * width}"
        )
    if name in YUV and size[0] % 2:
        raise NotShown(f"an image of {name} has an even width, not {size[0]}")
    if name in DEPTH:
        data, name = _eight_bits(data, DEPTH[name]), "mono8"
    return _jpeg(_image(data, name, size), limit)


def _eight_bits(data: memoryview, kind: Any) -> memoryview:
    """Return values from 0 to 255; those below 0, infinite and NaN ones are 0."""
    count = len(data) * 8 // kind.bit_width
    values = pc.cast(pa.Array.from_buffers(kind, count, [None, pa.py_buffer(data)]), pa.float32())
    values = pc.if_else(pc.and_(pc.is_finite(values), pc.greater(values, 0)), values, 0.0)
    high = max(pc.max(values).as_py() or 1.0, MIN_DEPTH)
    scaled = pc.round(pc.multiply(values, pa.scalar(255 / high, pa.float32())))
    limited = pc.min_element_wise(scaled, pa.scalar(255, pa.float32()))
    return memoryview(pc.cast(limited, pa.uint8()).buffers()[1]).cast("B")[: len(values)]


def _image(data: memoryview, name: str, size: tuple[int, int]) -> Image:
    """Return an image of Pillow."""
    from PIL import Image

    if name in YUV:
        half = (size[0] // 2, size[1])
        first, *colours = YUV[name]
        planes = [Image.frombytes("L", size, bytes(data[first::2]))]
        planes += [Image.frombytes("L", half, bytes(data[at::4])).resize(size) for at in colours]
        return Image.merge("YCbCr", planes)
    raw_mode = RAW[name][1]
    mode = "L" if raw_mode == "L" else "RGB"
    arguments: Any = (data, "raw", raw_mode, 0, 1)
    return Image.frombuffer(mode, size, *arguments)


def _jpeg(image: Image, limit: int) -> _Picture:
    scale = min(1.0, JPEG_WIDTH / image.width, JPEG_HEIGHT / image.height)
    while True:
        shown = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        reduced = image if shown == image.size else image.resize(shown, reducing_gap=2.0)
        target = io.BytesIO()
        reduced.save(target, "JPEG", quality=JPEG_QUALITY)
        if target.tell() <= limit or max(shown) == 1:
            return _Picture("image/jpeg", target.getvalue())
        scale *= min(SHRINK, math.sqrt(limit / target.tell()))
