"""Pictures of messages, raw and compressed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lerobot_robot_dora import pictures
from lerobot_robot_dora.messages import MessageUnusable

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_raw_pictures_are_exact_and_writable() -> None:
    value, metadata = pictures.write(PICTURE)
    found = pictures.read(value, metadata)
    assert (found == PICTURE).all()
    found[0, 0, 0] = 1


def test_jpeg_is_about_the_same() -> None:
    smooth = np.full((48, 64, 3), (200, 30, 90), np.uint8)
    value, metadata = pictures.write(smooth, 90)
    assert metadata == {"width": 64, "height": 48, "encoding": "jpeg"}
    assert len(value) < smooth.size / 4
    assert np.abs(pictures.read(value, metadata).astype(int) - smooth).max() < 4


@pytest.mark.parametrize(
    ("encoding", "sent"),
    [
        ("bgr8", PICTURE[:, :, ::-1]),
        ("rgba8", np.concatenate([PICTURE, PICTURE[:, :, :1]], axis=2)),
    ],
)
def test_other_orders_of_channels(encoding: str, sent: Any) -> None:
    metadata = {"width": 6, "height": 4, "encoding": encoding}
    assert (pictures.read(pa.array(sent.ravel()), metadata) == PICTURE).all()


def test_grey_and_png() -> None:
    grey = PICTURE[:, :, 0]
    size = {"width": 6, "height": 4}
    found = pictures.read(pa.array(grey.ravel()), {**size, "encoding": "mono8"})
    assert (found == grey[:, :, None]).all()
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "PNG")
    data = pa.array(np.frombuffer(file.getvalue(), np.uint8))
    assert (pictures.read(data, {**size, "encoding": "png"}) == PICTURE).all()
    with pytest.raises(MessageUnusable, match="has 6 x 4 pixels, but the metadata 4 x 6"):
        pictures.read(data, {"width": 4, "height": 6, "encoding": "png"})


@pytest.mark.parametrize(
    ("value", "metadata", "problem"),
    [
        (pa.array([1.0]), {}, "the picture is double; expected uint8 without null"),
        (pa.array([1], pa.uint8()), {}, "6 x 4 pixels in rgb8 has 72 bytes, this one 1"),
        (pa.array([1], pa.uint8()), {"encoding": "h264"}, 'the encoding "h264" is not known'),
        (pa.array([1], pa.uint8()), {"encoding": "jpeg"}, "the picture cannot be decoded"),
    ],
)
def test_wrong_pictures(value: pa.Array, metadata: dict[str, Any], problem: str) -> None:
    with pytest.raises(MessageUnusable) as refused:
        pictures.read(value, {"width": 6, "height": 4, **metadata})
    assert problem in str(refused.value)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 4)])
def test_what_a_robot_must_not_have(shape: tuple[int, ...]) -> None:
    with pytest.raises(MessageUnusable, match="expected uint8 of height, width and 3"):
        pictures.write(np.zeros(shape, np.uint8))
