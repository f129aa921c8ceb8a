"""Displayed values as fields of Foxglove's schemas."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

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
)
from dora_recordings.foxglove_messages import SCHEMAS, foxglove_fields

K = VisualKind
POINTS = Points(3, bytes(24))
IMAGE = Image(1, 1, "mono8", b"x")
POSE = Pose((1.0, 2.0, 3.0))
VALUES: dict[VisualKind, Visual] = {
    K.IMAGE: IMAGE,
    K.ENCODED_IMAGE: EncodedImage("png", b"x"),
    K.DEPTH: IMAGE,
    K.MASKS: IMAGE,
    K.POINTS_2D: Points(2, bytes(16), (255, 0, 0)),
    K.POINTS_3D: POINTS,
    K.BOXES_2D: Boxes((Box((5.0, 4.0), (2.0, 1.0), "cat", 0.5),)),
    K.BOXES_3D: Boxes((Box((5.0, 4.0, 3.0), (2.0, 1.0, 1.0)),)),
    K.LINES_3D: Lines(POINTS),
    K.POSE: POSE,
    K.TRANSFORM: POSE,
    K.ODOMETRY: POSE,
    K.VECTOR: Numbers((1.0,), ("x",)),
    K.TWIST: Numbers((1.0,)),
    K.JOINTS: Joints(("a", "b"), (1.0, 2.0), (3.0,)),
    K.NUMBERS: Numbers((1.0,)),
    K.TEXT: Text("hello"),
}


def fields(kind: VisualKind) -> dict[str, Any]:
    return foxglove_fields(kind, VALUES[kind], 3_000_000_004, "front")


@pytest.mark.parametrize(
    "kind", [kind for kind in VisualKind if SCHEMAS[kind].startswith("foxglove.")]
)
def test_each_kind_fits_its_schema(kind: VisualKind) -> None:
    """Protobuf refuses unknown fields and wrong types."""
    name = SCHEMAS[kind].removeprefix("foxglove.")
    schema = getattr(import_module(f"foxglove_schemas_protobuf.{name}_pb2"), name)
    found = schema(**fields(kind))
    stamped = found.entities[0] if name == "SceneUpdate" else found
    assert (stamped.timestamp.seconds, stamped.timestamp.nanos) == (3, 4)


def test_boxes_become_outlines_with_labels() -> None:
    found = fields(K.BOXES_2D)
    assert found["points"][0]["points"][0] == {"x": 3.0, "y": 3.0}
    assert found["points"][0]["points"][2] == {"x": 7.0, "y": 5.0}
    assert found["texts"][0]["text"] == "cat 0.50"


def test_sizes_of_boxes_in_space_are_whole() -> None:
    (cube,) = fields(K.BOXES_3D)["entities"][0]["cubes"]
    assert cube["size"] == {"x": 4.0, "y": 2.0, "z": 2.0}


def test_joints_without_a_value_leave_it_out() -> None:
    first, second = fields(K.JOINTS)["joints"]
    assert first == {"name": "a", "position": 1.0, "velocity": 3.0}
    assert second == {"name": "b", "position": 2.0}


def test_each_kind_has_the_documented_schema() -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "record.md"
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines()]
    shown = {cells[0]: cells[3] for cells in rows if len(cells) == 5}
    assert {kind: shown[kind.value] for kind in VisualKind} == SCHEMAS
