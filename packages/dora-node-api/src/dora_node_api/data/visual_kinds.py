"""Kinds of messages that viewers display, in one table.

A message's kind follows from the metadata `primitive`, which nodes of the dora hub set, else from
the declared type of its output, else from its metadata and Arrow type. Imports no viewer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class VisualKind(StrEnum):
    """Kinds of messages that viewers display; the values are in the documentation."""

    IMAGE = "image"
    ENCODED_IMAGE = "encoded image"
    DEPTH = "depth"
    MASKS = "masks"
    POINTS_2D = "points2d"
    POINTS_3D = "points3d"
    BOXES_2D = "boxes2d"
    BOXES_3D = "boxes3d"
    LINES_3D = "lines3d"
    POSE = "pose"
    TRANSFORM = "transform"
    VECTOR = "vector"
    JOINTS = "joints"
    TWIST = "twist"
    ODOMETRY = "odometry"
    NUMBERS = "numbers"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class KindNames:
    """Names by which one kind is recognized."""

    kind: VisualKind
    types: tuple[str, ...]
    """Standard types of outputs, without parameters."""
    primitives: tuple[str, ...]
    """Values of the metadata `primitive`."""


_NUMBER_TYPES = tuple(
    f"std/core/v1/{name}"
    for name in ("Float32", "Float64", "Int32", "Int64", "UInt8", "UInt32", "UInt64", "Bool")
)

TABLE: tuple[KindNames, ...] = (
    KindNames(VisualKind.IMAGE, ("std/media/v1/Image",), ("image",)),
    KindNames(VisualKind.ENCODED_IMAGE, ("std/media/v1/CompressedImage",), ()),
    KindNames(VisualKind.DEPTH, (), ("depth",)),
    KindNames(VisualKind.MASKS, ("std/vision/v1/Segmentation",), ("masks",)),
    KindNames(VisualKind.POINTS_2D, (), ("points2d",)),
    KindNames(VisualKind.POINTS_3D, ("std/media/v1/PointCloud",), ("points3d",)),
    KindNames(
        VisualKind.BOXES_2D, ("std/vision/v1/BoundingBox", "std/vision/v1/Detection"), ("boxes2d",)
    ),
    KindNames(VisualKind.BOXES_3D, (), ("boxes3d",)),
    KindNames(VisualKind.LINES_3D, (), ("lines3d",)),
    KindNames(VisualKind.POSE, ("std/math/v1/Pose",), ("pose",)),
    KindNames(VisualKind.TRANSFORM, ("std/math/v1/Transform",), ()),
    KindNames(VisualKind.VECTOR, ("std/math/v1/Vector3", "std/math/v1/Quaternion"), ()),
    KindNames(VisualKind.JOINTS, ("std/control/v1/JointState",), ("jointstate",)),
    KindNames(VisualKind.TWIST, ("std/control/v1/Twist",), ()),
    KindNames(VisualKind.ODOMETRY, ("std/control/v1/Odometry",), ()),
    KindNames(VisualKind.NUMBERS, _NUMBER_TYPES, ("series",)),
    KindNames(VisualKind.TEXT, ("std/core/v1/String",), ("text",)),
)

_BY_TYPE = {name: one.kind for one in TABLE for name in one.types}
_BY_PRIMITIVE = {name: one.kind for one in TABLE for name in one.primitives}
ENCODED_FORMATS = {"jpeg": "jpeg", "jpg": "jpeg", "png": "png", "webp": "webp", "avif": "avif"}
"""Values of the metadata `encoding` of encoded images, and the names of their formats."""


IMAGE_FIELDS = frozenset({"width", "height", "encoding", "data"})
"""Fields of an image that is a struct, `std/media/v1/Image`."""


def visual_kind(
    arrow_type: Any, metadata: Mapping[str, Any], declared: str | None
) -> VisualKind | None:
    """Return the kind of a message; None if no viewer has a display for it.

    ``declared``: type of the output as in the dataflow file, such as
    `std/media/v1/Image[encoding=rgb8]`. Unknown values of `primitive` are ignored.
    """
    kind = _BY_PRIMITIVE.get(str(metadata.get("primitive")))
    if kind is None and declared is not None:
        kind = _BY_TYPE.get(declared.partition("[")[0])
    if kind is None:
        kind = _guess(arrow_type, metadata)
    encoding = metadata.get("encoding") or type_parameter(declared, "encoding")
    if kind is VisualKind.IMAGE and str(encoding).lower() in ENCODED_FORMATS:
        return VisualKind.ENCODED_IMAGE
    return kind


def primitive_of_name(name: str) -> str | None:
    """Return the `primitive` of an input's name, such as `image` of `left_image`.

    Nodes of the dora hub rely on it. None if the name contains several primitives or none.
    """
    found = [primitive for primitive in _BY_PRIMITIVE if primitive in name]
    return found[0] if len(found) == 1 else None


def type_parameter(declared: str | None, name: str) -> str | None:
    """Return a parameter of a declared type."""
    for pair in (declared or "").partition("[")[2].rstrip("]").split(","):
        key, _, value = pair.partition("=")
        if key.strip() == name:
            return value.strip()
    return None


def _guess(arrow_type: Any, metadata: Mapping[str, Any]) -> VisualKind | None:
    from pyarrow import types

    if types.is_uint8(arrow_type) and {"width", "height", "encoding"} <= metadata.keys():
        return VisualKind.IMAGE
    if types.is_struct(arrow_type) and {field.name for field in arrow_type} >= IMAGE_FIELDS:
        return VisualKind.IMAGE
    if types.is_integer(arrow_type) or types.is_floating(arrow_type):
        return VisualKind.NUMBERS
    if types.is_boolean(arrow_type):
        return VisualKind.NUMBERS
    if types.is_string(arrow_type) or types.is_large_string(arrow_type):
        return VisualKind.TEXT
    return None


def output_types(descriptor: Mapping[str, Any]) -> dict[str, str]:
    """Return the declared types by output; those of operators by ``node/operator/output``."""
    found: dict[str, str] = {}
    for node in descriptor.get("nodes", ()):
        parts = [(node["id"], node)]
        parts += [(f"{node['id']}/{one['id']}", one) for one in node.get("operators") or ()]
        for prefix, part in parts:
            for output, name in (part.get("output_types") or {}).items():
                found[f"{prefix}/{output}"] = str(name)
    return found
