"""Small pictures of messages that are images, for viewers; uses Arrow.

An image has the metadata `encoding`, and `width` and `height` unless it is compressed. Compressed
images are sent as they are. Others become JPEG if Pillow is installed, else PNG with fewer pixels.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyarrow import types

COMPRESSED: Final[Mapping[str, str]] = {
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
}
"""Media type of each compressed encoding."""
MAX_PIXELS: Final = 1 << 26
JPEG_QUALITY: Final = 80
JPEG_WIDTH: Final = 1280
"""Wider images are reduced before they are compressed."""


@dataclass(frozen=True, slots=True)
class _Raw:
    """Layout of an uncompressed encoding: bytes of a pixel, and those of its colours in order."""

    bytes: int
    colours: tuple[int, ...]
    mode: str
    """Raw mode of Pillow."""


RAW: Final[Mapping[str, _Raw]] = {
    "rgb8": _Raw(3, (0, 1, 2), "RGB"),
    "bgr8": _Raw(3, (2, 1, 0), "BGR"),
    "rgba8": _Raw(4, (0, 1, 2), "RGBX"),
    "bgra8": _Raw(4, (2, 1, 0), "BGRX"),
    "mono8": _Raw(1, (0,), "L"),
    "8uc1": _Raw(1, (0,), "L"),
    "8uc3": _Raw(3, (2, 1, 0), "BGR"),
}
DEPTH: Final = frozenset({"mono16", "16uc1"})
"""16 bits a pixel, little-endian; shown from black for 0 to white for the largest value."""


class PictureTooLarge(ValueError):
    """A compressed image has more bytes than a viewer accepts."""


def picture(array: Any, metadata: Mapping[str, Any], limit: int) -> dict[str, Any] | None:
    """Return a picture of at most ``limit`` bytes as JSON; None: the message is not an image.

    Raises PictureTooLarge.
    """
    encoding = metadata.get("encoding")
    if not isinstance(encoding, str):
        return None
    name = encoding.lower()
    data = _bytes(array)
    if data is None:
        return None
    width, height = metadata.get("width"), metadata.get("height")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
    if name in COMPRESSED:
        if len(data) > limit:
            raise PictureTooLarge(f"an image of {len(data)} bytes, above the limit of {limit}")
        return _as_json(COMPRESSED[name], bytes(data), encoding, size or (0, 0), size or (0, 0))
    if size is None or not 0 < size[0] * size[1] <= MAX_PIXELS or min(size) <= 0:
        return None
    if name in DEPTH:
        if len(data) != size[0] * size[1] * 2:
            return None
        data, name = _eight_bits(data), "mono8"
    raw = RAW.get(name)
    if raw is None or len(data) != size[0] * size[1] * raw.bytes:
        return None
    media, content, shown = _jpeg(data, raw, size, limit) or _png(data, raw, size, limit)
    return _as_json(media, content, encoding, size, shown)


def _as_json(
    media: str, content: bytes, encoding: str, size: tuple[int, int], shown: tuple[int, int]
) -> dict[str, Any]:
    return {
        "media": media,
        "data": base64.b64encode(content).decode(),
        "encoding": encoding[:32],
        "width": size[0],
        "height": size[1],
        "shownWidth": shown[0],
        "shownHeight": shown[1],
    }


def _bytes(array: Any) -> memoryview | None:
    """Return the bytes of an array of integers, or of a single binary value, without a copy."""
    kind = array.type
    if array.null_count:
        return None
    if types.is_integer(kind):
        width = kind.bit_width // 8
        view = memoryview(array.buffers()[1]).cast("B")
        return view[array.offset * width : (array.offset + len(array)) * width]
    if len(array) == 1 and (types.is_binary(kind) or types.is_large_binary(kind)):
        return memoryview(array[0].as_buffer()).cast("B")
    return None


def _eight_bits(data: memoryview) -> memoryview:
    values = data.cast("H")
    high = max(values, default=0) or 1
    return memoryview(bytes(value * 255 // high for value in values))


def _jpeg(
    data: memoryview, raw: _Raw, size: tuple[int, int], limit: int
) -> tuple[str, bytes, tuple[int, int]] | None:
    """Return a JPEG; None without Pillow."""
    try:
        from PIL import Image
    except ImportError:
        return None
    mode = "L" if raw.mode == "L" else "RGB"
    image = Image.frombuffer(mode, size, data, "raw", raw.mode, 0, 1)  # type: ignore[arg-type]
    factor = max(1, -(-size[0] // JPEG_WIDTH))
    while True:
        reduced = image if factor == 1 else image.reduce(factor)
        target = io.BytesIO()
        reduced.save(target, "JPEG", quality=JPEG_QUALITY)
        if target.tell() <= limit or factor > max(size):
            return "image/jpeg", target.getvalue(), reduced.size
        factor *= 2


def _png(
    data: memoryview, raw: _Raw, size: tuple[int, int], limit: int
) -> tuple[str, bytes, tuple[int, int]]:
    """Return a PNG with every n-th pixel, so that even incompressible ones are below the limit."""
    width, height = size
    samples = len(raw.colours)
    step = 1
    while -(-width // step) * -(-height // step) * samples > limit * 0.95:
        step += 1
    shown = (-(-width // step), -(-height // step))
    packed = zlib.compress(b"".join(_rows(data, raw, size, step)), 1)
    header = struct.pack(">2I5B", *shown, 8, 2 if samples == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)
    return "image/png", content, shown


def _rows(data: memoryview, raw: _Raw, size: tuple[int, int], step: int) -> Iterator[bytes]:
    """Yield the rows of a PNG, each after its filter type 0."""
    width, height = size
    stride = width * raw.bytes
    samples = len(raw.colours)
    plain = step == 1 and raw.colours == tuple(range(raw.bytes))
    row = bytearray(samples * -(-width // step))
    for top in range(0, height * stride, stride * step):
        line = data[top : top + stride]
        yield b"\0"
        if plain:
            yield bytes(line)
            continue
        for index, colour in enumerate(raw.colours):
            row[index::samples] = line[colour :: raw.bytes * step]
        yield bytes(row)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checked = kind + body
    return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))
