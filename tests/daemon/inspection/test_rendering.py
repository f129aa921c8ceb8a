"""Messages as lines of JSON, complete or shortened."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.queues import Edge, Segments

from dora_daemon.inspection.pictures import PictureLimits
from dora_daemon.inspection.rendering import Cut, render
from dora_node_api.data import arrow
from dora_node_api.transport.shared.board import Board


def text_of(
    array: Any,
    metadata: dict[str, Any] | None = None,
    limit: int = 1000,
    pictures: PictureLimits | None = None,
) -> str:
    """Send a message through a queue and render it."""
    board, segments = Board.create(1 << 20), Segments()
    edge = Edge(board, segments)
    sender, receiver = edge.sender(cap=256 << 20), edge.receiver()
    try:
        sender.send("out", arrow.encode(array, metadata))
        delivery = receiver.receive()
        assert delivery is not None
        text = render("camera/out", delivery, limit, pictures)
        text.encode()
        return text
    finally:
        sender.close()
        receiver.close()
        edge.close()
        segments.close()
        board.close()


def rendered(
    array: Any, metadata: dict[str, Any] | None = None, pictures: PictureLimits | None = None
) -> Any:
    text = text_of(array, metadata, pictures=pictures)
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_a_short_message_is_complete() -> None:
    shown = rendered(pa.array([1, None, 3]), {"unit": "m", "n": 2})
    now = datetime.now(UTC).timestamp() * 1000
    assert 0 <= now - shown.pop("timestamp") < 60_000
    assert shown == {"name": "camera/out", "data": [1, None, 3], "metadata": {"unit": "m", "n": 2}}


def test_an_image_has_a_picture_and_no_data() -> None:
    metadata = {"encoding": "mono8", "width": 2, "height": 1}
    shown = rendered(pa.array([1, 2], pa.uint8()), metadata, PictureLimits(10_000))
    assert shown["picture"]["width"] == 2
    assert shown["data"] == []
    assert shown["shortened"]["bytes"] > 0


def test_an_image_without_a_picture_has_its_data_and_the_reason() -> None:
    metadata = {"encoding": "mono8", "width": 3, "height": 1}
    shown = rendered(pa.array([1, 2], pa.uint8()), metadata, PictureLimits(10_000))
    assert "2 bytes are not an image of 3 x 1 pixels" in shown["unshown"]
    assert shown["data"] == [1, 2]
    assert "unshown" not in rendered(pa.array([1, 2], pa.uint8()), metadata)


BOX = {"x": 1.0, "y": 2.0, "w": 3.0, "h": 4.0, "confidence": 0.5, "label": "cup"}


@pytest.mark.parametrize(
    ("array", "metadata"),
    [
        (pa.array([BOX]), {}),
        (pa.array([{"boxes": [BOX]}]), {}),
        (pa.array([{"bbox": [1.0, 2.0, 4.0, 6.0], "conf": [0.5], "labels": ["cup"]}]), None),
    ],
    ids=["boxes", "detection", "dora hub"],
)
def test_boxes_are_drawn(array: Any, metadata: dict[str, Any] | None) -> None:
    known = {"primitive": "boxes2d"} if metadata is None else metadata
    shown = rendered(array, {**known, "width": 640, "height": 480}, PictureLimits(10_000))
    boxes = [[1.0, 2.0, 3.0, 4.0, "cup 50\u202f%"]]
    assert shown["overlay"] == {"width": 640, "height": 480, "boxes": boxes}
    assert shown["data"]


def test_points_and_masks_are_drawn() -> None:
    limits = PictureLimits(10_000)
    points = pa.array([1, 2, 3, 4], pa.float32())
    shown = rendered(points, {"primitive": "points2d", "color": [255, 0, 16]}, limits)
    assert shown["overlay"] == {"color": "#ff0010", "points": [[1.0, 2.0], [3.0, 4.0]]}
    size = {"width": 2, "height": 1}
    for mask, metadata in (
        (pa.array([0, 7], pa.uint8()), {"primitive": "masks", **size}),
        (pa.array([False, True]), {"primitive": "masks", **size}),
        (pa.array([{**size, "mask": b"\0\1"}]), {}),
    ):
        shown = rendered(mask, metadata, limits)
        assert shown["overlay"]["mask"]["width"] == 2
        assert "data" in shown["overlay"]["mask"]
        assert "overlay" not in rendered(mask, metadata)


def test_what_does_not_fit_is_not_drawn() -> None:
    for array, metadata in (
        (pa.array([1, 2, 3], pa.float32()), {"primitive": "points2d"}),
        (pa.array([1, 2], pa.uint8()), {"primitive": "masks", "width": 3, "height": 1}),
        (pa.array(["a"]), {"primitive": "boxes2d"}),
        (pa.array([1.0]), {}),
    ):
        assert "overlay" not in rendered(array, metadata, PictureLimits(10_000))


def test_timestamp_of_the_sender_is_kept() -> None:
    shown = rendered(pa.array([1]), {"timestamp": datetime(2020, 1, 2, tzinfo=UTC)})
    assert shown["metadata"] == {"timestamp": "2020-01-02T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array(["a", "ü", None]), ["a", "ü", None]),
        (pa.array([b"\x00\xff"]), [[0, 255]]),
        (pa.array([True, False]), [True, False]),
        (pa.array([{"a": 1, "b": [1.5, None]}, None]), [{"a": 1, "b": [1.5, None]}, None]),
        (pa.array([[1, 2], [], None]), [[1, 2], [], None]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array([1.5, float("nan"), float("inf")]), [1.5, None, None]),
        (pa.array([datetime(2020, 1, 2)]), ["2020-01-02T00:00:00"]),
        (pa.nulls(2), [None, None]),
        (pa.array([], pa.int8()), []),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2)), [[1, 2], [3, 4]]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), [[{"key": "k", "value": 1}]]),
        (pa.array(["\x9b31m \u202e \x1b"]), ["\x9b31m \u202e \x1b"]),
    ],
)
def test_values_equal_those_of_to_pylist(array: Any, expected: Any) -> None:
    assert rendered(array)["data"] == expected


@pytest.mark.parametrize(
    "array",
    [
        pa.array(np.zeros(8_000_000, np.uint8)),
        pa.array(np.random.default_rng(1).random(100_000)),
        pa.array(["long " * 1_000_000]),
        pa.array([b"\xff" * 1_000_000]),
        pa.array([list(range(100_000))]),
        pa.array([{"text": "x" * 100_000, "list": list(range(10_000))}] * 50),
        pa.array(["word"] * 100_000).dictionary_encode(),
        pa.array([[["deep"] * 1000] * 100]),
    ],
)
def test_long_message_is_shortened_and_contains_its_size(array: Any) -> None:
    text = text_of(array)
    shown = json.loads(text)
    assert len(text) <= 1000
    assert shown["shortened"]["elements"] == len(array)
    assert shown["shortened"]["type"] == str(array.type)
    assert shown["data"]


def test_unions_in_lists_count_towards_the_limit() -> None:
    kinds = pa.array([0] * 1000, pa.int8())
    union = pa.UnionArray.from_sparse(kinds, [pa.array(range(1000)), pa.array(["x"] * 1000)])
    lists = pa.ListArray.from_arrays(list(range(0, 1001, 10)), union)
    cut = Cut(25)
    assert sum(len(shown) for shown in cut.values(lists)) <= 25
    assert cut.shortened


def test_element_that_is_too_wide_is_left_out() -> None:
    wide = pa.array([{f"field_{number}": number for number in range(5000)}])
    shown = json.loads(text_of(wide))
    assert shown["data"] == []
    assert shown["shortened"]["elements"] == 1
    assert shown["shortened"]["type"].startswith("struct<field_0: int64, ")


def test_long_metadata_is_left_out() -> None:
    shown = rendered(pa.array([1]), {"text": "x" * 5000})
    assert shown["metadata"] == {}
    assert shown["shortened"] == {"metadata": "left out"}
    assert shown["data"] == [1]


def test_control_characters_are_escaped() -> None:
    text = text_of(pa.array(["\x9b31m \u202e \x1b"]), {"\x9bkey": "\x7f"})
    assert all(character.isprintable() for character in text)


def test_times_that_python_cannot_represent_are_text() -> None:
    far = pa.array([2**62], pa.timestamp("s"))
    assert rendered(far)["data"] == [f"<value out of range: {2**62}>"]
    stamp = pa.array([1], pa.timestamp("ns"))
    shown = rendered(pa.StructArray.from_arrays([stamp], ["stamp"]))
    assert shown["data"] == [{"stamp": "1970-01-01 00:00:00.000000001"}]
