"""Pictures of images: pixels, colours, sizes, limits."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dora_daemon.inspection.pictures import NotShown, PictureLimits, picture

LIMIT = 256 * 1024
SMALL = PictureLimits(LIMIT)


def image_of(found: dict[str, Any]) -> Any:
    content = base64.b64decode(found["data"])
    with Image.open(io.BytesIO(content)) as opened:
        assert Image.MIME[str(opened.format)] == found["media"]
        return np.asarray(opened)


def shown(pixels: Any, encoding: str, limits: PictureLimits = SMALL) -> dict[str, Any]:
    height, width = pixels.shape[:2]
    metadata = {"encoding": encoding, "width": width, "height": height}
    array = pa.array(pixels.reshape(-1))
    found = picture(array, metadata, limits)
    assert found is not None
    assert len(base64.b64decode(found["data"])) <= max(limits.small, limits.whole)
    assert (found["width"], found["height"]) == (width, height)
    return found


def test_grey_and_depth() -> None:
    grey = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))
    assert abs(image_of(shown(grey, "mono8")).astype(int) - grey).max() < 4
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    assert image_of(shown(depth, "mono16"))[-1, -1] > 250


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "BGR8", "rgba8", "bgra8"])
def test_jpeg_has_the_colours_of_the_image(encoding: str) -> None:
    smooth = np.zeros((480, 640, 4 if "a" in encoding else 3), np.uint8)
    smooth[:, :, 0 if encoding.startswith("rgb") else 2] = np.linspace(0, 255, 640, dtype=np.uint8)
    found = shown(smooth, encoding)
    assert found["media"] == "image/jpeg"
    difference = image_of(found)[:, :, 0].astype(int) - np.linspace(0, 255, 640, dtype=np.uint8)
    assert abs(difference).max() < 12


@pytest.mark.parametrize("data", [pa.binary(), pa.large_binary(), pa.list_(pa.uint8())])
def test_a_struct_with_the_fields_of_an_image_is_shown(data: pa.DataType) -> None:
    """As `std/media/v1/Image` is documented; also one of several rows, and compressed."""
    grey = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (48, 1))
    size = {"width": pa.uint32(), "height": pa.uint32(), "encoding": pa.string(), "data": data}
    row = {"width": 64, "height": 48, "encoding": "mono8", "data": grey.tobytes()}
    array = pa.array([{**row, "width": 1}, row], pa.struct(size))
    found = picture(array[1:], {"frame": 1}, SMALL)
    assert found is not None
    assert (found["width"], found["height"], found["encoding"]) == (64, 48, "mono8")
    assert abs(image_of(found).astype(int) - grey).max() < 4
    assert picture(array, {}, SMALL) is None
    jpeg = {**row, "encoding": "jpeg", "data": base64.b64decode(found["data"])}
    again = picture(pa.array([jpeg], pa.struct(size)), {}, SMALL)
    assert again is not None
    assert again["media"] == "image/jpeg"


def test_wide_images_are_reduced() -> None:
    found = shown(np.zeros((1080, 1920, 3), np.uint8), "rgb8")
    assert image_of(found).shape == (720, 1280, 3)


def test_an_incompressible_image_stays_below_the_limit() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    shown(noise, "rgb8", PictureLimits(50_000))


def test_metres_of_a_depth_image() -> None:
    metres = np.array([[0.0, 1.0, 2.0], [4.0, np.nan, np.inf], [-1.0, 3.0, 4.0]], np.float32)
    grey = image_of(shown(np.repeat(np.repeat(metres, 16, 0), 16, 1), "32FC1"))[8::16, 8::16]
    expected = np.array([[0, 64, 128], [255, 0, 0], [0, 191, 255]])
    assert abs(grey.astype(int) - expected).max() < 4
    as_bytes = pa.array([metres.tobytes()])
    metadata = {"encoding": "32FC1", "width": 3, "height": 3}
    assert picture(as_bytes, metadata, SMALL) is not None


@pytest.mark.parametrize(
    ("encoding", "pair"), [("yuyv", (76, 85, 76, 255)), ("uyvy", (85, 76, 255, 76))]
)
def test_pairs_of_pixels(encoding: str, pair: tuple[int, ...]) -> None:
    array = pa.array(np.tile(np.array(pair, np.uint8), 16 * 32))
    metadata = {"encoding": encoding, "width": 32, "height": 32}
    found = picture(array, metadata, SMALL)
    assert found is not None
    red = image_of(found)[16, 16].astype(int)
    assert abs(red - np.array([255, 0, 0])).max() < 12


def encoded(kind: str, width: int, height: int) -> bytes:
    """Return a compressed image of noise, which is large."""
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    target = io.BytesIO()
    Image.fromarray(noise).save(target, kind)
    return target.getvalue()


@pytest.mark.parametrize(
    "array", [pa.array([b"\xff\xd8jpeg"]), pa.array([*b"\xff\xd8jpeg"], pa.uint8())]
)
def test_small_compressed_images_are_sent_as_they_are(array: Any) -> None:
    found = picture(array, {"encoding": "jpeg", "width": 640, "height": 480}, SMALL)
    assert found is not None
    assert found["media"] == "image/jpeg"
    assert base64.b64decode(found["data"]) == b"\xff\xd8jpeg"


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_large_compressed_images_are_reduced(kind: str) -> None:
    content = encoded(kind, 1920, 1080)
    assert len(content) > LIMIT
    found = picture(pa.array([content]), {"encoding": kind}, SMALL)
    assert found is not None
    assert found["media"] == "image/jpeg"
    assert len(base64.b64decode(found["data"])) <= LIMIT
    assert image_of(found).shape[0] > 200
    assert (found["width"], found["height"]) == (1920, 1080)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"", b"<svg>"])
def test_malformed_compressed_images_are_not_decoded_here(content: bytes) -> None:
    long = content + bytes(LIMIT + 1)
    found = picture(pa.array([long]), {"encoding": "png"}, PictureLimits(LIMIT, 2 * LIMIT))
    assert found is not None
    assert base64.b64decode(found["data"]) == long
    with pytest.raises(NotShown, match="Pillow cannot decode it"):
        picture(pa.array([long]), {"encoding": "png"}, SMALL)


def test_a_high_image_is_reduced_to_the_limit_of_the_format() -> None:
    pixels = pa.array(np.zeros(70_000, np.uint8))
    found = picture(pixels, {"encoding": "mono8", "width": 1, "height": 70_000}, SMALL)
    assert found is not None
    assert image_of(found).shape == (65_000, 1)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_compressed_images_with_too_many_pixels_are_not_shown(kind: str) -> None:
    target = io.BytesIO()
    Image.new("1" if kind == "png" else "L", (16384, 4097)).save(target, kind)
    array = pa.array([target.getvalue()])
    with pytest.raises(NotShown, match="16384 x 4097 pixels"):
        picture(array, {"encoding": kind}, PictureLimits(1 << 24, 1 << 24))


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_size_of_a_compressed_image_without_metadata(kind: str) -> None:
    found = picture(pa.array([encoded(kind, 64, 48)]), {"encoding": kind}, SMALL)
    assert found is not None
    assert (found["width"], found["height"]) == (64, 48)


BYTES = pa.array([1, 2, 3], pa.uint8())
NULL = pa.array([1, None, 3], pa.uint8())


@pytest.mark.parametrize(
    ("array", "metadata"),
    [
        (BYTES, {}),
        (BYTES, {"encoding": 7}),
        (BYTES, {"encoding": "pcm", "sample_rate": 16000}),
        (pa.array([{"score": 1.0}]), {"encoding": "rgb8", "width": 1, "height": 1}),
        (pa.array(["a cat"]), {"encoding": "jpeg", "width": 1, "height": 1}),
    ],
)
def test_other_messages_are_not_images(array: Any, metadata: dict[str, Any]) -> None:
    assert picture(array, metadata, SMALL) is None


@pytest.mark.parametrize(
    ("array", "metadata", "reason"),
    [
        (BYTES, {"encoding": "rgb8"}, "`width` and `height` of this image are missing"),
        (BYTES, {"encoding": "rgb8", "width": 2, "height": 2}, "3 bytes are not an image of 2 x 2"),
        (BYTES, {"encoding": "rgb8", "width": -1, "height": -1}, "-1 x -1 pixels is not shown"),
        (BYTES, {"encoding": "rgb8", "width": 1 << 40, "height": 1 << 40}, "is not shown"),
        (
            BYTES,
            {"encoding": "bayer_rggb8", "width": 3, "height": 1},
            '"bayer_rggb8" are not shown',
        ),
        (NULL, {"encoding": "rgb8", "width": 1, "height": 1}, "uint8"),
        (pa.array([0.5] * 3), {"encoding": "rgb8", "width": 1, "height": 1}, "type double"),
        (pa.array([], pa.uint8()), {"encoding": "rgb8", "width": 0, "height": 0}, "0 x 0"),
        (pa.array([1, 2], pa.uint8()), {"encoding": "yuyv", "width": 1, "height": 1}, "even width"),
    ],
)
def test_the_reason_why_an_image_is_not_shown(
    array: Any, metadata: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NotShown, match=reason):
        picture(array, metadata, SMALL)


def test_a_slice_of_an_array() -> None:
    pixels = pa.array([9, 9, 9, 1, 2, 3], pa.uint8()).slice(3)
    found = picture(pixels, {"encoding": "mono8", "width": 3, "height": 1}, SMALL)
    assert found is not None
    assert image_of(found).shape == (1, 3)
