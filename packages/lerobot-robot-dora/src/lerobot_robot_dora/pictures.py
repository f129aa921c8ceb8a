"""Pictures as LeRobot has them, arrays of height, width and RGB, from and to messages."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lerobot_robot_dora.messages import MessageUnusable, Metadata, size

RAW = {"rgb8": (3, "RGB"), "bgr8": (3, "BGR"), "rgba8": (4, "RGBA"), "mono8": (1, "L")}
"""Channels and order of raw pictures."""
COMPRESSED = ("jpeg", "jpg", "png")
Picture = NDArray[np.uint8]


def read(value: pa.Array, metadata: Metadata) -> Picture:
    """Return the picture of a message, in memory of its own. Raises MessageUnusable."""
    height, width = size(metadata)
    encoding = str(metadata.get("encoding", "rgb8")).lower()
    if value.type != pa.uint8() or value.null_count:
        raise MessageUnusable(f"the picture is {value.type}; expected uint8 without null")
    data: Picture = value.to_numpy()
    if encoding in COMPRESSED:
        found = _decoded(data.tobytes())
        if found.shape != (height, width, 3):
            raise MessageUnusable(
                f"the picture has {found.shape[1]} x {found.shape[0]} pixels, but the metadata"
                f" {width} x {height}"
            )
        return found
    if encoding not in RAW:
        raise MessageUnusable(
            f'the encoding "{encoding}" is not known; expected {", ".join((*RAW, *COMPRESSED))}'
        )
    channels, order = RAW[encoding]
    if len(data) != height * width * channels:
        raise MessageUnusable(
            f"a picture of {width} x {height} pixels in {encoding} has"
            f" {height * width * channels} bytes, this one {len(data)}"
        )
    pixels = data.reshape(height, width, channels)
    if order == "BGR":
        return np.ascontiguousarray(pixels[:, :, ::-1])
    if order == "L":
        return np.repeat(pixels, 3, axis=2)
    # LeRobot makes tensors of it, and tensors of shared memory are read-only.
    return pixels[:, :, :3].copy()


def _decoded(data: bytes) -> Picture:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise MessageUnusable(f"the picture cannot be decoded: {error}") from error


def write(picture: Picture, quality: int = 0) -> tuple[pa.Array, dict[str, Any]]:
    """Return a message: raw, or JPEG of a quality from 1 to 100. Raises MessageUnusable."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise MessageUnusable(
            f"a picture is {picture.dtype} of shape {picture.shape}; expected uint8 of height,"
            " width and 3"
        )
    height, width, _ = picture.shape
    metadata = {"width": width, "height": height, "encoding": "jpeg" if quality else "rgb8"}
    if not quality:
        return pa.array(np.ascontiguousarray(picture).ravel()), metadata
    target = io.BytesIO()
    Image.fromarray(picture).save(target, "JPEG", quality=quality)
    return pa.array(np.frombuffer(target.getbuffer(), np.uint8)), metadata
