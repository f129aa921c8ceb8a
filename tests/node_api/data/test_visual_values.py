"""Values of displayed messages."""

from __future__ import annotations

import math
import struct
from typing import Any

import pyarrow as pa
import pytest

from dora_node_api.data.visual_kinds import VisualKind
from dora_node_api.data.visual_values import (
    Box,
    Boxes,
    EncodedImage,
    Image,
    Joints,
    Lines,
    Numbers,
    Points,
    Pose,
    Text,
    Visual,
    read_visual,
)

K = VisualKind
VECTOR = {"x": 1.0, "y": 2.0, "z": 3.0}
QUATERNION = {"x": 0.0, "y": 0.0, "z": 1.0, "w": 0.0}
# Older versions of pyarrow infer the fields of a struct in any order.
TWIST = pa.struct(
    {"linear": pa.struct({"x": pa.float64()}), "angular": pa.struct({"z": pa.float64()})}
)
TRIPLES = struct.pack("<6f", 1, 2, 3, 4, 5, 6)


def floats(*values: float) -> pa.Array:
    return pa.array(values, pa.float32())


CASES: dict[str, tuple[VisualKind, Any, dict[str, Any], Visual]] = {
    "raw image": (
        K.IMAGE,
        pa.array(range(20), pa.uint8())[2:8],
        {"width": 2, "height": 1, "encoding": "BGR8"},
        Image(2, 1, "bgr8", bytes(range(2, 8))),
    ),
    "image struct": (
        K.IMAGE,
        pa.array([{"width": 1, "height": 1, "encoding": "mono8", "data": b"x"}]),
        {},
        Image(1, 1, "mono8", b"x"),
    ),
    "jpeg": (
        K.ENCODED_IMAGE,
        pa.array([0xFF, 0xD8, 1], pa.uint8()),
        {},
        EncodedImage("jpeg", b"\xff\xd8\x01"),
    ),
    "binary png": (
        K.ENCODED_IMAGE,
        pa.array([b"abc"], pa.large_binary()),
        {"format": "PNG"},
        EncodedImage("png", b"abc"),
    ),
    "depth": (
        K.DEPTH,
        pa.array([1.5, 2.5]),
        {"width": 2, "height": 1},
        Image(2, 1, "32FC1", struct.pack("<2f", 1.5, 2.5)),
    ),
    "depth in millimetres": (
        K.DEPTH,
        pa.array([1500], pa.uint16()),
        {"width": 1, "height": 1},
        Image(1, 1, "32FC1", struct.pack("<f", 1.5)),
    ),
    "mask of a threshold": (
        K.MASKS,
        floats(0, 0.5),
        {"width": 2, "height": 1},
        Image(2, 1, "mono8", b"\x00\xff"),
    ),
    "mask of truth values": (
        K.MASKS,
        pa.array([True, None]),
        {"width": 2, "height": 1},
        Image(2, 1, "mono8", b"\xff\x00"),
    ),
    "segmentation": (
        K.MASKS,
        pa.array([{"width": 1, "height": 2, "mask": b"\x00\x01"}]),
        {},
        Image(1, 2, "mono8", b"\x00\x01"),
    ),
    "points": (
        K.POINTS_3D,
        floats(1, 2, 3, 4, 5, 6),
        {"color": [255, 0, 300], "radii": [0.5]},
        Points(3, TRIPLES, (255, 0, 255), (0.5,)),
    ),
    "points in an image": (K.POINTS_2D, floats(1, 2, 3, 4, 5, 6), {}, Points(2, TRIPLES)),
    "point cloud": (
        K.POINTS_3D,
        pa.array([{"width": 2, "height": 1, "data": TRIPLES}]),
        {},
        Points(3, TRIPLES),
    ),
    "lines": (
        K.LINES_3D,
        floats(1, 2, 3, 4, 5, 6),
        {"radius": 0.5},
        Lines(Points(3, TRIPLES), 0.5),
    ),
    "boxes by corners": (
        K.BOXES_2D,
        floats(0, 0, 4, 2),
        {},
        Boxes((Box((2.0, 1.0), (2.0, 1.0)),)),
    ),
    "boxes by centre": (
        K.BOXES_2D,
        floats(2, 1, 4, 2),
        {"format": "xywh"},
        Boxes((Box((2.0, 1.0), (2.0, 1.0)),)),
    ),
    "boxes of a detector": (
        K.BOXES_2D,
        pa.array([{"bbox": [0.0, 0.0, 4.0, 2.0], "conf": [0.5], "labels": ["cat"]}]),
        {"format": "xyxy"},
        Boxes((Box((2.0, 1.0), (2.0, 1.0), "cat", 0.5),)),
    ),
    "a detection": (
        K.BOXES_2D,
        pa.array(
            [{"boxes": [{"x": 0.0, "y": 0.0, "w": 4.0, "h": 2.0, "confidence": 1.0, "label": "a"}]}]
        ),
        {},
        Boxes((Box((2.0, 1.0), (2.0, 1.0), "a", 1.0),)),
    ),
    "boxes in space": (
        K.BOXES_3D,
        floats(1, 2, 3, 4, 5, 6),
        {"format": "center_half_size", "solid": True},
        Boxes((Box((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),), solid=True),
    ),
    "boxes in space by corners": (
        K.BOXES_3D,
        pa.array([{"bbox": [0.0, 0.0, 0.0, 2.0, 4.0, 6.0], "colors": [1, 2, 3]}]),
        {},
        Boxes((Box((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), color=(1, 2, 3)),)),
    ),
    "no boxes": (K.BOXES_2D, floats(), {}, Boxes(())),
    "pose": (
        K.POSE,
        floats(1, 2, 3, 0, 0, 1, 0),
        {"frame_id": "map"},
        Pose((1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 0.0), "map"),
    ),
    "transform": (
        K.TRANSFORM,
        pa.array([{"translation": VECTOR, "rotation": QUATERNION}]),
        {},
        Pose((1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 0.0)),
    ),
    "odometry": (
        K.ODOMETRY,
        pa.array([{"pose": {"position": VECTOR, "orientation": QUATERNION}, "frame_id": "odom"}]),
        {},
        Pose((1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 0.0), "odom"),
    ),
    "joints": (
        K.JOINTS,
        floats(1, 2),
        {"joint_names": ["a", "b"]},
        Joints(("a", "b"), (1.0, 2.0)),
    ),
    "joint state": (
        K.JOINTS,
        pa.array([{"names": ["a"], "positions": [1.0], "velocities": None, "efforts": [3.0]}]),
        {},
        Joints(("a",), (1.0,), (), (3.0,)),
    ),
    "numbers": (K.NUMBERS, pa.array([1, 2]), {}, Numbers((1.0, 2.0))),
    "twist": (
        K.TWIST,
        pa.array([{"linear": {"x": 1.0}, "angular": {"z": 2.0}}], TWIST),
        {},
        Numbers((1.0, 2.0), ("linear.x", "angular.z")),
    ),
    "text": (K.TEXT, pa.array(["a", None, "b"]), {}, Text("a\n\nb")),
}


@pytest.mark.parametrize("name", CASES)
def test_values_of(name: str) -> None:
    kind, array, metadata, expected = CASES[name]
    assert read_visual(kind, array, metadata) == expected


def test_a_parameter_of_the_type_replaces_missing_metadata() -> None:
    array, size = pa.array([1, 2, 3], pa.uint8()), {"width": 1, "height": 1}
    found = read_visual(K.IMAGE, array, size, "std/media/v1/Image[encoding=bgr8]")
    assert found == Image(1, 1, "bgr8", b"\x01\x02\x03")


def test_missing_numbers_are_not_zero() -> None:
    found = read_visual(K.NUMBERS, pa.array([1.0, None]), {})
    assert isinstance(found, Numbers)
    assert math.isnan(found.values[1])


def test_integers_that_floats_cannot_represent_are_rounded() -> None:
    stamp = pa.array([1_700_000_000_123_456_789])
    assert read_visual(K.NUMBERS, stamp, {}) == Numbers((1.7000000001234568e18,))
    points = read_visual(K.POINTS_2D, pa.array([2**24 + 1, 0]), {})
    assert points == Points(2, struct.pack("<2f", 2**24, 0))


@pytest.mark.parametrize(
    ("kind", "array", "metadata", "problem"),
    [
        (K.IMAGE, floats(1), {}, "the metadata needs width and height"),
        (K.IMAGE, floats(1), {"width": 0, "height": 1}, "a size of 0 x 1 is not valid"),
        (K.IMAGE, floats(1), {"width": 1, "height": 1, "encoding": "x"}, "unknown encoding 'x'"),
        (K.IMAGE, pa.array([1, 2], pa.uint8()), {"width": 1, "height": 1}, "has 3 bytes"),
        (K.IMAGE, pa.array([1, None, 3], pa.uint8()), {"width": 1, "height": 1}, "has nulls"),
        (K.ENCODED_IMAGE, pa.array([1], pa.uint8()), {}, "unknown format None"),
        (
            K.DEPTH,
            floats(1),
            {"width": 2, "height": 1},
            "2 x 1 pixels in 32FC1 has 8 bytes, this one 4",
        ),
        (K.DEPTH, pa.array(["a"]), {"width": 2, "height": 1}, "expected numbers, found string"),
        (K.POINTS_3D, floats(1, 2), {}, "2 numbers are not points of 3 coordinates"),
        (K.BOXES_2D, floats(1, 2), {}, "2 numbers are not boxes of 4 numbers"),
        (K.BOXES_2D, floats(1, 2, 3, 4), {"format": "x"}, "unknown format 'x' of boxes"),
        (K.BOXES_2D, pa.array([{"a": 1}]), {}, "boxes need x, y, w and h; found a"),
        (K.POSE, floats(1, 2), {}, "a pose has 7 numbers"),
        (K.POSE, pa.array([{"a": 1}]), {}, "not a pose: fields a"),
        (K.NUMBERS, pa.array(["a"]), {}, "expected numbers, found string"),
        (K.MASKS, pa.array([{"width": 1, "height": 1}]), {}, "does not fit masks: KeyError"),
        (K.BOXES_2D, pa.array(["a"]), {}, "expected numbers, found string"),
        (K.BOXES_2D, pa.array([None, {"x": 1.0}]), {}, "does not fit boxes2d"),
        (K.POSE, pa.array([None, 1.0, 2.0]), {}, "does not fit pose"),
        (K.POINTS_2D, floats(1, 2), {"color": [math.inf] * 3}, "does not fit points2d: Overflow"),
    ],
)
def test_messages_that_do_not_fit(
    kind: VisualKind, array: Any, metadata: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        read_visual(kind, array, metadata)
