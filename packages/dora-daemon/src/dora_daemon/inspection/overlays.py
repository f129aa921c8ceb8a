"""Boxes, points and masks of messages, which viewers draw over a picture; uses Arrow.

A message's kind follows from its metadata `primitive`, else from the fields of the standard types,
else from a `primitive` in the name of its output, such as `left_boxes2d`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
from pyarrow import types

from dora_daemon.inspection.pictures import PictureLimits, picture
from dora_node_api.data.visual_kinds import VisualKind, primitive_of_name, visual_kind
from dora_node_api.data.visual_values import Box, Boxes, Image, Points, read_visual

MAX_BOXES: Final = 500
MAX_POINTS: Final = 2000
_FIELDS: Final = (
    ({"x", "y", "w", "h"}, "std/vision/v1/BoundingBox"),
    ({"boxes"}, "std/vision/v1/Detection"),
    ({"bbox"}, "std/vision/v1/Detection"),
    ({"width", "height", "mask"}, "std/vision/v1/Segmentation"),
)
_KINDS: Final = (VisualKind.BOXES_2D, VisualKind.POINTS_2D, VisualKind.MASKS)
_INSIDE: Final = bytes(1) + b"\xff" * 255
"""Table that maps values above zero to white."""


def overlay(
    name: str, array: Any, metadata: Mapping[str, Any], limits: PictureLimits
) -> dict[str, Any] | None:
    """Return what is drawn, as JSON, at most `MAX_BOXES` or `MAX_POINTS`; None: nothing."""
    kind = _kind(name, array.type, metadata)
    if kind not in _KINDS:
        return None
    try:
        value = read_visual(kind, array, metadata)
        found = _drawn(value, limits)
    except ValueError:
        return None
    size = {key: metadata[key] for key in ("width", "height") if type(metadata.get(key)) is int}
    return {**size, **found}


def _kind(name: str, arrow: Any, metadata: Mapping[str, Any]) -> VisualKind | None:
    if "primitive" in metadata:
        return visual_kind(arrow, metadata, None)
    if types.is_struct(arrow):
        fields = {field.name for field in arrow}
        declared = next((one for needed, one in _FIELDS if needed <= fields), None)
        return visual_kind(arrow, metadata, declared)
    primitive = primitive_of_name(name.rpartition("/")[2])
    return visual_kind(arrow, {**metadata, "primitive": primitive}, None)


def _drawn(value: Any, limits: PictureLimits) -> dict[str, Any]:
    match value:
        case Boxes(boxes=boxes, color=color):
            return {**_color(color), "boxes": [_box(one) for one in boxes[:MAX_BOXES]]}
        case Points(data=data, color=color):
            points = list(struct.iter_unpack("<2f", data[: 8 * MAX_POINTS]))
            return {**_color(color), "points": points}
        case Image(width=width, height=height, data=data):
            size = {"encoding": "mono8", "width": width, "height": height}
            white = memoryview(data.translate(_INSIDE))
            return {"width": width, "height": height, "mask": _mask(white, size, limits)}
    raise ValueError(f"{type(value).__name__} is not drawn")


def _mask(data: memoryview, size: Mapping[str, Any], limits: PictureLimits) -> Any:
    array = pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])
    return picture(array, size, limits)


def _color(color: tuple[int, int, int] | None) -> dict[str, str]:
    return {} if color is None else {"color": "#{:02x}{:02x}{:02x}".format(*color)}


def _box(box: Box) -> tuple[float, float, float, float, str]:
    """Return the upper left corner, the size and the label."""
    (x, y), (half_width, half_height) = box.center[:2], box.half_size[:2]
    share = None if box.confidence is None else f"{100 * box.confidence:.0f}\u202f%"
    label = " ".join(text for text in (box.label, share) if text)
    return x - half_width, y - half_height, 2 * half_width, 2 * half_height, label
