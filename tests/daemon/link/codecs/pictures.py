"""Pictures for tests of codecs, and the payloads that nodes send."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from dora_node_api.data import arrow
from dora_node_api.transport.shared.payload import Payload

WIDTH, HEIGHT = 320, 240
Pixels = Any


def picture(number: int, *, width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> Pixels:
    """Return a smooth picture that moves with its number, with a square that is its number."""
    rows, columns = np.mgrid[0:height, 0:width]
    made = np.stack([(columns + 3 * number) % 256, rows % 256, (rows + columns) // 4 % 256], -1)
    made[40:80, 40:80] = 25 * (number % 10)
    return np.ascontiguousarray(made[:, :, :channels].astype(np.uint8))


def payload(pixels: Pixels, encoding: str = "rgb8", **metadata: Any) -> tuple[Payload, memoryview]:
    """Return a message as it lies in a block, and its data area."""
    height, width = pixels.shape[:2]
    about = {"width": width, "height": height, "encoding": encoding, **metadata}
    made = arrow.encode(pa.array(pixels.ravel()), about)
    memory = bytearray(made.total)
    made.write_into(memory)
    return made, memoryview(memory)[made.data_offset :]


def number_in(pixels: Pixels) -> int:
    """Return the number of a picture that was compressed with loss."""
    return round(float(pixels[50:70, 50:70].mean()) / 25)


def close(one: Pixels, other: Pixels, within: float = 12.0) -> bool:
    """Return whether two pictures look the same."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean()) < within
