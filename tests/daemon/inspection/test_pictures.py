"""Pictures of images: pixels, colours, sizes, limits."""

from __future__ import annotations

import base64
import io
import sys
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dora_daemon.inspection.pictures import PictureTooLarge, picture

LIMIT = 256 * 1024
COLOURS = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def image_of(found: dict[str, Any]) -> Any:
    content = base64.b64decode(found["data"])
    with Image.open(io.BytesIO(content)) as opened:
        assert Image.MIME[str(opened.format)] == found["media"]
        assert opened.size == (found["shownWidth"], found["shownHeight"])
        return np.asarray(opened)


def shown(pixels: Any, encoding: str, limit: int = LIMIT, *, pillow: bool = True) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    metadata = {"encoding": encoding, "width": width, "height": height}
    array = pa.array(pixels.reshape(-1))
    with patch.dict(sys.modules, {} if pillow else {"PIL": None}):
        found = picture(array, metadata, limit)
    assert found is not None
    assert len(base64.b64decode(found["data"])) <= limit
    assert (found["width"], found["height"]) == (width, height)
    return found


@pytest.mark.parametrize(
    ("encoding", "order"),
    [
        ("rgb8", (0, 1, 2)),
        ("bgr8", (2, 1, 0)),
        ("BGR8", (2, 1, 0)),
        ("rgba8", (0, 1, 2, 0)),
        ("bgra8", (2, 1, 0, 0)),
    ],
)
def test_png_has_the_pixels_of_the_image(encoding: str, order: tuple[int, ...]) -> None:
    sent = np.ascontiguousarray(COLOURS[:, :, list(order)])
    assert np.array_equal(image_of(shown(sent, encoding, pillow=False)), COLOURS)


def test_grey_and_depth() -> None:
    grey = COLOURS[:, :, 0]
    assert np.array_equal(image_of(shown(np.ascontiguousarray(grey), "mono8", pillow=False)), grey)
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    assert image_of(shown(depth, "mono16", pillow=False))[-1, -1] == 255


def test_a_large_image_without_pillow_has_fewer_pixels() -> None:
    large = np.tile(COLOURS, (20, 20, 1))
    found = shown(large, "rgb8", pillow=False)
    step = -(-large.shape[1] // found["shownWidth"])
    assert np.array_equal(image_of(found), large[::step, ::step])


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_jpeg_with_pillow(encoding: str) -> None:
    smooth = np.zeros((480, 640, 3), np.uint8)
    smooth[:, :, 0 if encoding == "rgb8" else 2] = np.linspace(0, 255, 640, dtype=np.uint8)
    found = shown(smooth, encoding)
    assert found["media"] == "image/jpeg"
    difference = image_of(found)[:, :, 0].astype(int) - np.linspace(0, 255, 640, dtype=np.uint8)
    assert abs(difference).max() < 12


def test_wide_images_are_reduced() -> None:
    found = shown(np.zeros((1080, 1920, 3), np.uint8), "rgb8")
    assert found["shownWidth"] == 960


def test_an_incompressible_image_stays_below_the_limit() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    shown(noise, "rgb8", limit=50_000)


@pytest.mark.parametrize(
    "array", [pa.array([b"\xff\xd8jpeg"]), pa.array([*b"\xff\xd8jpeg"], pa.uint8())]
)
def test_compressed_images_are_sent_as_they_are(array: Any) -> None:
    found = picture(array, {"encoding": "jpeg", "width": 640, "height": 480}, LIMIT)
    assert found is not None
    assert found["media"] == "image/jpeg"
    assert base64.b64decode(found["data"]) == b"\xff\xd8jpeg"
    with pytest.raises(PictureTooLarge):
        picture(array, {"encoding": "jpeg"}, 3)


@pytest.mark.parametrize(
    ("array", "metadata"),
    [
        (pa.array([1, 2, 3], pa.uint8()), {}),
        (pa.array([1, 2, 3], pa.uint8()), {"encoding": 7}),
        (pa.array([1, 2, 3], pa.uint8()), {"encoding": "rgb8"}),
        (pa.array([1, 2, 3], pa.uint8()), {"encoding": "rgb8", "width": 2, "height": 2}),
        (pa.array([1, 2, 3], pa.uint8()), {"encoding": "rgb8", "width": -1, "height": -1}),
        (pa.array([1, None, 3], pa.uint8()), {"encoding": "rgb8", "width": 1, "height": 1}),
        (pa.array([0.5] * 3), {"encoding": "rgb8", "width": 1, "height": 1}),
        (pa.array(["jpeg"]), {"encoding": "jpeg"}),
        (pa.array([], pa.uint8()), {"encoding": "rgb8", "width": 0, "height": 0}),
    ],
)
def test_other_messages_are_not_images(array: Any, metadata: dict[str, Any]) -> None:
    assert picture(array, metadata, LIMIT) is None


def test_a_slice_of_an_array() -> None:
    pixels = pa.array([9, 9, 9, 1, 2, 3], pa.uint8()).slice(3)
    found = picture(pixels, {"encoding": "mono8", "width": 3, "height": 1}, LIMIT)
    assert found is not None
    assert found["shownWidth"] == 3
