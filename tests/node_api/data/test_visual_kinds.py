"""The table of what viewers display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dora_config.dataflow.types import STANDARD_TYPES
from dora_node_api.data.visual_kinds import TABLE, VisualKind, visual_kind


def test_each_kind_type_and_primitive_is_in_the_table_once() -> None:
    assert [one.kind for one in TABLE] == list(VisualKind)
    types = [name for one in TABLE for name in one.types]
    primitives = [name for one in TABLE for name in one.primitives]
    assert len(types) == len(set(types))
    assert len(primitives) == len(set(primitives))


def test_the_types_are_standard_types() -> None:
    named = {name for one in TABLE for name in one.types}
    assert named <= STANDARD_TYPES.keys()
    assert STANDARD_TYPES.keys() - named == {"std/core/v1/Bytes", "std/media/v1/AudioFrame"}


def test_primitives_of_the_dora_hub() -> None:
    assert {name for one in TABLE for name in one.primitives} == {
        "boxes2d",
        "boxes3d",
        "depth",
        "image",
        "jointstate",
        "lines3d",
        "masks",
        "points2d",
        "points3d",
        "pose",
        "series",
        "text",
    }


SIZED = {"width": 2, "height": 1, "encoding": "bgr8"}


@pytest.mark.parametrize(
    ("arrow", "metadata", "declared", "kind"),
    [
        (pa.float32(), {"primitive": "pose"}, "std/core/v1/Float32", VisualKind.POSE),
        (pa.uint8(), {"primitive": "masks", **SIZED}, None, VisualKind.MASKS),
        (pa.uint8(), {"primitive": "image", "encoding": "JPEG"}, None, VisualKind.ENCODED_IMAGE),
        (pa.uint8(), {}, "std/media/v1/Image[encoding=png]", VisualKind.ENCODED_IMAGE),
        (pa.uint8(), {}, "std/media/v1/Image[encoding=rgb8]", VisualKind.IMAGE),
        (pa.float64(), {"primitive": "unknown"}, None, VisualKind.NUMBERS),
        (pa.uint8(), SIZED, None, VisualKind.IMAGE),
        (pa.struct([("x", pa.float32())]), SIZED, None, None),
        (
            pa.struct({name: pa.string() for name in ("width", "height", "encoding", "data")}),
            {},
            None,
            VisualKind.IMAGE,
        ),
        (pa.large_string(), {}, None, VisualKind.TEXT),
        (pa.bool_(), {}, "user/Own", VisualKind.NUMBERS),
        (pa.binary(), {}, None, None),
    ],
)
def test_primitive_type_and_array_decide_in_this_order(
    arrow: Any, metadata: dict[str, Any], declared: str | None, kind: VisualKind | None
) -> None:
    assert visual_kind(arrow, metadata, declared) is kind


def test_the_documentation_shows_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "howto" / "record.md"
    lines = [line.strip("| ").split(" | ") for line in page.read_text().splitlines()]
    shown = {cells[0]: cells for cells in lines if len(cells) == 5}
    for one in TABLE:
        cells = shown[one.kind.value]
        assert cells[1] == ", ".join(f"`{name}`" for name in one.primitives)
        if one.kind is not VisualKind.NUMBERS:
            types = (name.removeprefix("std/") for name in one.types)
            assert cells[2] == ", ".join(f"`{name}`" for name in types)
