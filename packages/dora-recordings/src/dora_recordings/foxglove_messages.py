"""Messages of Foxglove: schemas and bytes. Needs foxglove-schemas-protobuf."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import pyarrow as pa

from dora_node_api.data.python_values import python_values
from dora_node_api.data.visual_kinds import VisualKind
from dora_node_api.data.visual_values import (
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

_NO_DISPLAY = "dora.Message"
SCHEMAS: Mapping[VisualKind, str] = {
    VisualKind.IMAGE: "foxglove.RawImage",
    VisualKind.ENCODED_IMAGE: "foxglove.CompressedImage",
    VisualKind.DEPTH: "foxglove.RawImage",
    VisualKind.MASKS: "foxglove.RawImage",
    VisualKind.POINTS_2D: "foxglove.ImageAnnotations",
    VisualKind.POINTS_3D: "foxglove.PointCloud",
    VisualKind.BOXES_2D: "foxglove.ImageAnnotations",
    VisualKind.BOXES_3D: "foxglove.SceneUpdate",
    VisualKind.LINES_3D: "foxglove.SceneUpdate",
    VisualKind.POSE: "foxglove.PoseInFrame",
    VisualKind.TRANSFORM: "foxglove.FrameTransform",
    VisualKind.VECTOR: "dora.Numbers",
    VisualKind.JOINTS: "foxglove.JointStates",
    VisualKind.TWIST: "dora.Numbers",
    VisualKind.ODOMETRY: "foxglove.PoseInFrame",
    VisualKind.NUMBERS: "dora.Numbers",
    VisualKind.TEXT: "foxglove.Log",
}
"""Schema of each kind; Foxglove has no schema of numbers, so this module defines one."""
_JSON_SCHEMAS = {
    _NO_DISPLAY: b'{"type":"object"}',
    "dora.Numbers": b"""{"type":"object","properties":{
"timestamp":{"type":"object","properties":{"sec":{"type":"integer"},"nsec":{"type":"integer"}}},
"values":{"type":"array","items":{"type":"number"}},
"names":{"type":"array","items":{"type":"string"}}}}""",
}
"""Schemas that Foxglove does not have: of messages without a display, and of numbers."""
MAX_ELEMENTS = 4096
"""Most elements of an array in JSON."""


Fields = dict[str, Any]

WORLD = "world"
"""Frame of positions whose messages do not name a frame."""
_FLOAT32 = 7  # PackedElementField.NumericType
_POINTS, _LINE_LOOP = 1, 2  # PointsAnnotation.Type
_LINE_STRIP = 0  # LinePrimitive.Type
_INFO = 2  # Log.Level
_GREEN = (0, 200, 0)
_LINE_PIXELS = 2.0
_FONT_PIXELS = 12.0


def foxglove_fields(kind: VisualKind, visual: Visual, nanoseconds: int, frame: str) -> Fields:
    """Return the fields of a message.

    ``nanoseconds``: Unix time of sending. ``frame``: the metadata `frame_id`, empty if there is
    none. Empty arrays of boxes give empty messages, which remove earlier ones from the display.
    """
    timestamp = {"seconds": nanoseconds // 10**9, "nanos": nanoseconds % 10**9}
    match visual:
        case Image():
            return {
                "timestamp": timestamp,
                "frame_id": frame,
                "width": visual.width,
                "height": visual.height,
                "encoding": visual.encoding,
                "step": visual.step,
                "data": visual.data,
            }
        case EncodedImage():
            named = {"format": visual.format, "data": visual.data}
            return {"timestamp": timestamp, "frame_id": frame, **named}
        case Points(dimensions=2):
            return {"timestamp": timestamp, "points": [_marks(visual, timestamp)]}
        case Points():
            return _cloud(visual, timestamp, frame)
        case Boxes() if kind is VisualKind.BOXES_2D:
            return _outlines(visual, timestamp)
        case Boxes():
            cubes = [
                _cube(center=one.center, half=one.half_size, color=one.color or visual.color)
                for one in visual.boxes
            ]
            return _scene(timestamp, frame, {"cubes": cubes})
        case Lines():
            return _scene(timestamp, frame, {"lines": [_line(visual)]})
        case Pose() if kind is VisualKind.TRANSFORM:
            return {
                "timestamp": timestamp,
                "parent_frame_id": visual.frame or WORLD,
                "child_frame_id": frame or "base",
                "translation": _axes(visual.position),
                "rotation": _axes(visual.orientation),
            }
        case Pose():
            pose = _pose(visual.position, visual.orientation)
            return {
                "timestamp": timestamp,
                "frame_id": visual.frame or frame or WORLD,
                "pose": pose,
            }
        case Joints():
            return {"timestamp": timestamp, "joints": _joints(visual)}
        case Numbers():
            time = {"sec": nanoseconds // 10**9, "nsec": nanoseconds % 10**9}
            return {"timestamp": time, "values": [*visual.values], "names": [*visual.names]}
        case Text():
            return {"timestamp": timestamp, "level": _INFO, "message": visual.text, "name": frame}


def _axes(values: Sequence[float]) -> Fields:
    return dict(zip("xyzw", values, strict=False))


def _pose(
    position: Sequence[float] = (0.0, 0.0, 0.0), turn: Sequence[float] = (0.0, 0.0, 0.0, 1.0)
) -> Fields:
    return {"position": _axes(position), "orientation": _axes(turn)}


def _color(color: tuple[int, int, int] | None) -> Fields:
    red, green, blue = color or _GREEN
    return {"r": red / 255, "g": green / 255, "b": blue / 255, "a": 1.0}


def _cloud(points: Points, timestamp: Fields, frame: str) -> Fields:
    fields = [
        {"name": axis, "offset": 4 * index, "type": _FLOAT32} for index, axis in enumerate("xyz")
    ]
    return {
        "timestamp": timestamp,
        "frame_id": frame or WORLD,
        "pose": _pose(),
        "point_stride": 4 * points.dimensions,
        "fields": fields,
        "data": points.data,
    }


def _marks(points: Points, timestamp: Fields) -> Fields:
    return {
        "timestamp": timestamp,
        "type": _POINTS,
        "points": [_axes(point) for point in points.rows],
        "outline_color": _color(points.color),
        "thickness": _LINE_PIXELS * 2,
    }


def _outlines(boxes: Boxes, timestamp: Fields) -> Fields:
    loops, texts = [], []
    for box in boxes.boxes:
        (x, y), (dx, dy) = box.center[:2], box.half_size[:2]
        corners = ((x - dx, y - dy), (x + dx, y - dy), (x + dx, y + dy), (x - dx, y + dy))
        loops.append(
            {
                "timestamp": timestamp,
                "type": _LINE_LOOP,
                "points": [_axes(corner) for corner in corners],
                "outline_color": _color(box.color or boxes.color),
                "thickness": _LINE_PIXELS,
            }
        )
        score = "" if box.confidence is None else f" {box.confidence:.2f}"
        if text := f"{box.label}{score}".strip():
            texts.append(
                {
                    "timestamp": timestamp,
                    "position": _axes(corners[0]),
                    "text": text,
                    "font_size": _FONT_PIXELS,
                    "text_color": _color(box.color or boxes.color),
                }
            )
    return {"timestamp": timestamp, "points": loops, "texts": texts}


def _cube(
    *, center: Sequence[float], half: Sequence[float], color: tuple[int, int, int] | None
) -> Fields:
    size = [2 * one for one in half]
    return {"pose": _pose(center), "size": _axes(size), "color": _color(color)}


def _line(lines: Lines) -> Fields:
    return {
        "type": _LINE_STRIP,
        "pose": _pose(),
        "thickness": lines.radius * 2 or _LINE_PIXELS,
        "scale_invariant": not lines.radius,
        "points": [_axes(point) for point in lines.points.rows],
        "color": _color(lines.points.color),
    }


def _scene(timestamp: Fields, frame: str, primitives: Fields) -> Fields:
    entity = {"timestamp": timestamp, "frame_id": frame or WORLD, "id": "0", **primitives}
    return {"entities": [entity]}


def _joints(joints: Joints) -> list[Fields]:
    columns = {
        "position": joints.positions,
        "velocity": joints.velocities,
        "effort": joints.efforts,
    }
    return [
        {
            "name": name,
            **{field: values[index] for field, values in columns.items() if index < len(values)},
        }
        for index, name in enumerate(joints.names)
    ]


def schema_name(kind: VisualKind | None) -> str:
    return _NO_DISPLAY if kind is None else SCHEMAS[kind]


def json_message(array: pa.Array, metadata: Mapping[str, Any]) -> bytes:
    """Return a message without a display. Raises ValueError."""
    values = {"data": python_values(array[:MAX_ELEMENTS]), "metadata": dict(metadata)}
    return _json(values)


def _json(values: object) -> bytes:
    return json.dumps(_json_value(values), allow_nan=False).encode()


def _json_value(value: object) -> object:
    """Return a JSON value; JSON does not support NaN, infinity, bytes and times."""
    match value:
        case dict():
            return {str(key): _json_value(one) for key, one in value.items()}
        case list() | tuple():
            return [_json_value(one) for one in value]
        case bytes():
            return list(value)
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


class MessageTypes:
    """Classes of protobuf messages by schema."""

    def __init__(self) -> None:
        """Import the libraries. Raises ImportError if they are not installed."""
        import foxglove_schemas_protobuf  # noqa: F401
        from google.protobuf import descriptor_pb2  # noqa: F401

        self._types: dict[str, Any] = {}

    def encode(self, kind: VisualKind, visual: Visual, nanoseconds: int, frame: str) -> bytes:
        """Return a message of the kind's schema; the arguments are those of `foxglove_fields`."""
        fields = foxglove_fields(kind, visual, nanoseconds, frame)
        schema = schema_name(kind)
        if schema in _JSON_SCHEMAS:
            return _json(fields)
        serialized: bytes = self[schema](**fields).SerializeToString()
        return serialized

    def __getitem__(self, schema: str) -> Any:
        if schema not in self._types:
            name = schema.rpartition(".")[2]
            module = import_module(f"foxglove_schemas_protobuf.{name}_pb2")
            self._types[schema] = getattr(module, name)
        return self._types[schema]

    def described(self, schema: str) -> tuple[str, str, bytes]:
        """Return the encoding of messages, that of their schema, and the schema."""
        if schema in _JSON_SCHEMAS:
            return "json", "jsonschema", _JSON_SCHEMAS[schema]
        return "protobuf", "protobuf", self._descriptors(schema)

    def _descriptors(self, schema: str) -> bytes:
        """Return the FileDescriptorSet of a schema, dependencies first."""
        from google.protobuf.descriptor_pb2 import FileDescriptorSet

        files: dict[str, Any] = {}

        def add(file: Any) -> None:
            for dependency in file.dependencies:
                add(dependency)
            files[file.name] = file

        add(self[schema].DESCRIPTOR.file)
        found = FileDescriptorSet()
        for file in files.values():
            file.CopyToProto(found.file.add())
        serialized: bytes = found.SerializeToString()
        return serialized
