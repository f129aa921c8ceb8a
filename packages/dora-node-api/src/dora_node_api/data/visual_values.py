"""Values of displayed messages, independent of a viewer: read from arrays and their metadata."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dora_node_api.data.python_values import python_value, python_values
from dora_node_api.data.visual_kinds import ENCODED_FORMATS, VisualKind, type_parameter

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
"""x, y, z, w"""
Color = tuple[int, int, int]
"""Red, green, blue: 0 to 255."""
IDENTITY: Quaternion = (0.0, 0.0, 0.0, 1.0)
MAX_NUMBERS = 4096
"""Longer arrays of numbers are cut: no viewer plots them."""
_OPAQUE = pa.scalar(255, pa.uint8())

CHANNELS: Mapping[str, int] = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "mono16": 2,
    "yuv422": 2,
    "uyvy": 2,
    "yuyv": 2,
}
"""Bytes per pixel of raw images, by encoding."""


@dataclass(frozen=True, slots=True)
class Image:
    """``height`` rows of ``width`` pixels, without padding."""

    width: int
    height: int
    encoding: str
    """A key of `CHANNELS`; `32FC1` for depth in metres, `mono8` for masks."""
    data: bytes

    @property
    def step(self) -> int:
        """Bytes of a row."""
        return len(self.data) // self.height


@dataclass(frozen=True, slots=True)
class EncodedImage:
    format: str
    """A value of `ENCODED_FORMATS`."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Points:
    """Points in two or three dimensions."""

    dimensions: int
    data: bytes
    """float32, ``dimensions`` for each point."""
    color: Color | None = None
    radii: tuple[float, ...] = ()
    """Metres: none, one for all points, or one for each."""

    @property
    def rows(self) -> list[tuple[float, ...]]:
        return list(struct.Struct(f"<{self.dimensions}f").iter_unpack(self.data))


@dataclass(frozen=True, slots=True)
class Box:
    """Centre and half size, in pixels or metres."""

    center: tuple[float, ...]
    half_size: tuple[float, ...]
    label: str = ""
    confidence: float | None = None
    color: Color | None = None
    """Replaces the colour of all boxes."""


@dataclass(frozen=True, slots=True)
class Boxes:
    boxes: tuple[Box, ...]
    color: Color | None = None
    solid: bool = False
    """Filled instead of outlined; in three dimensions only."""


@dataclass(frozen=True, slots=True)
class Lines:
    """One line through all the points."""

    points: Points
    radius: float = 0.0


@dataclass(frozen=True, slots=True)
class Pose:
    position: Vector
    orientation: Quaternion = IDENTITY
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Joints:
    """Lists of equal length, or empty."""

    names: tuple[str, ...]
    positions: tuple[float, ...]
    velocities: tuple[float, ...] = ()
    efforts: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Numbers:
    values: tuple[float, ...]
    names: tuple[str, ...] = ()
    """Empty, or one for each value."""


@dataclass(frozen=True, slots=True)
class Text:
    text: str


Visual = Image | EncodedImage | Points | Boxes | Lines | Pose | Joints | Numbers | Text


def read_visual(
    kind: VisualKind, array: pa.Array, metadata: Mapping[str, Any], declared: str | None = None
) -> Visual:
    """Return the value of a message; raises ValueError if it does not fit its kind.

    Arrays are as nodes of the dora hub send them, or structs of the standard types, of which the
    first element is read.
    """
    try:
        return _visual(kind, array, metadata, declared)
    except (LookupError, TypeError, AttributeError, OverflowError, pa.ArrowException) as error:
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{array.type} does not fit {kind}: {error!r}") from error


def _visual(
    kind: VisualKind, array: pa.Array, metadata: Mapping[str, Any], declared: str | None
) -> Visual:
    struct = _fields(array[0]) if pa.types.is_struct(array.type) and len(array) else None
    match kind:
        case VisualKind.IMAGE:
            if struct is not None and str(struct.get("encoding")).lower() in ENCODED_FORMATS:
                return _encoded(array, metadata, struct, declared)
            return _image(array, metadata, struct, declared)
        case VisualKind.ENCODED_IMAGE:
            return _encoded(array, metadata, struct, declared)
        case VisualKind.DEPTH | VisualKind.MASKS:
            return _plane(kind, array, metadata, struct)
        case VisualKind.POINTS_2D | VisualKind.POINTS_3D:
            return _points(array, metadata, struct, 2 if kind is VisualKind.POINTS_2D else 3)
        case VisualKind.BOXES_2D | VisualKind.BOXES_3D:
            return _boxes(array, metadata, 2 if kind is VisualKind.BOXES_2D else 3)
        case VisualKind.LINES_3D:
            points = _points(array, metadata, struct, 3)
            return Lines(points, float(metadata.get("radius", 0.0)))
        case VisualKind.POSE | VisualKind.TRANSFORM | VisualKind.ODOMETRY:
            return _pose(array, metadata, struct)
        case VisualKind.JOINTS:
            return _joints(array, metadata, struct)
        case VisualKind.VECTOR | VisualKind.TWIST | VisualKind.NUMBERS:
            return _numbers(array, metadata, struct)
        case VisualKind.TEXT:
            return Text("\n".join("" if one is None else str(one) for one in python_values(array)))


def _fields(row: pa.StructScalar) -> dict[str, Any]:
    """Return the fields of a struct; long lists of bytes as bytes."""
    return {
        name: _bytes(value.values)
        if value.is_valid and value.type == pa.list_(pa.uint8())
        else python_value(value)
        for name, value in row.items()
    }


def _bytes(array: pa.Array) -> bytes:
    """Return the memory of an array of fixed width without nulls."""
    if array.null_count:
        raise ValueError("the array has nulls")
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        return bytes(array[0].as_py()) if len(array) else b""
    try:
        width = array.type.bit_width // 8
    except ValueError:
        raise ValueError(f"an array of type {array.type} has no plain memory") from None
    buffer = array.buffers()[1]
    if buffer is None:
        return b""
    return bytes(memoryview(buffer)[array.offset * width : (array.offset + len(array)) * width])


def _floats(array: pa.Array) -> bytes:
    """Return float32 values."""
    try:
        return _bytes(array.cast(pa.float32(), safe=False))  # large integers are rounded
    except pa.ArrowException as error:
        raise ValueError(f"expected numbers, found {array.type}") from error


def _size(values: Mapping[str, Any]) -> tuple[int, int]:
    try:
        width, height = int(values["width"]), int(values["height"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("the metadata needs width and height") from None
    if width <= 0 or height <= 0:
        raise ValueError(f"a size of {width} x {height} is not valid")
    return width, height


def _image(
    array: pa.Array,
    metadata: Mapping[str, Any],
    struct: dict[str, Any] | None,
    declared: str | None,
) -> Image:
    values = metadata if struct is None else struct
    width, height = _size(values)
    encoding = values.get("encoding") or type_parameter(declared, "encoding") or "rgb8"
    encoding = str(encoding).lower()
    if encoding not in CHANNELS:
        raise ValueError(f"unknown encoding {encoding!r}; expected {', '.join(CHANNELS)}")
    data = bytes(struct["data"]) if struct is not None else _bytes(array)
    return _checked(Image(width, height, encoding, data), CHANNELS[encoding])


def _encoded(
    array: pa.Array,
    metadata: Mapping[str, Any],
    struct: dict[str, Any] | None,
    declared: str | None,
) -> EncodedImage:
    if struct is not None:
        metadata, data = struct, bytes(struct["data"])
    else:
        data = _bytes(array)
    given = metadata.get("encoding") or metadata.get("format") or type_parameter(declared, "format")
    if given is None and data.startswith(b"\xff\xd8"):
        given = "jpeg"
    if given is None and data.startswith(b"\x89PNG"):
        given = "png"
    name = str(given).rpartition("; ")[2].partition(" ")[0]  # ROS: "rgb8; jpeg compressed bgr8"
    if name.lower() not in ENCODED_FORMATS:
        raise ValueError(f"unknown format {given!r}; expected {', '.join(ENCODED_FORMATS)}")
    return EncodedImage(ENCODED_FORMATS[name.lower()], data)


def _plane(
    kind: VisualKind, array: pa.Array, metadata: Mapping[str, Any], struct: dict[str, Any] | None
) -> Image:
    """Return depth in metres or a mask, which have one value for each pixel."""
    width, height = _size(metadata if struct is None else struct)
    if kind is VisualKind.DEPTH:
        data = _floats(_in_metres(array))
        return _checked(Image(width, height, "32FC1", data), 4)
    if struct is not None:
        data = bytes(struct["mask"])
    elif pa.types.is_boolean(array.type) or pa.types.is_floating(array.type):
        inside = array if pa.types.is_boolean(array.type) else pc.greater(array, 0)
        data = _bytes(pc.multiply(inside.fill_null(False).cast(pa.uint8()), _OPAQUE))
    else:
        data = _bytes(array)
    return _checked(Image(width, height, "mono8", data), 1)


def _in_metres(array: pa.Array) -> pa.Array:
    """Return depth in metres; cameras that send unsigned integers measure in millimetres."""
    if pa.types.is_uint16(array.type):
        return pc.divide(array.cast(pa.float32()), pa.scalar(1000, pa.float32()))
    return array


def _checked(image: Image, width: int) -> Image:
    """Check the number of bytes, of which a pixel has ``width``."""
    expected = image.width * image.height * width
    if len(image.data) != expected:
        raise ValueError(
            f"an image of {image.width} x {image.height} pixels in {image.encoding} has"
            f" {expected} bytes, this one {len(image.data)}"
        )
    return image


def _rgb(given: object) -> Color | None:
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 3:
        return None
    red, green, blue = (min(max(int(one), 0), 255) for one in given)
    return red, green, blue


def _points(
    array: pa.Array, metadata: Mapping[str, Any], struct: dict[str, Any] | None, dimensions: int
) -> Points:
    data = bytes(struct["data"]) if struct is not None else _floats(array)
    if len(data) % (4 * dimensions):
        raise ValueError(f"{len(data) // 4} numbers are not points of {dimensions} coordinates")
    return Points(
        dimensions,
        data,
        _rgb(metadata.get("color")),
        _radii(metadata, len(data) // 4 // dimensions),
    )


def _radii(metadata: Mapping[str, Any], points: int) -> tuple[float, ...]:
    given = metadata.get("radii")
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) not in (1, points):
        return ()
    return tuple(float(one) for one in given)


def _boxes(array: pa.Array, metadata: Mapping[str, Any], dimensions: int) -> Boxes:
    layout = str(metadata.get("format", "xyxy" if dimensions == 2 else "min_max"))
    boxes = tuple(_box_list(array, layout, dimensions))
    return Boxes(boxes, _rgb(metadata.get("color")), metadata.get("solid") is True)


def _box_list(array: pa.Array, layout: str, dimensions: int) -> list[Box]:
    if not pa.types.is_struct(array.type):
        try:
            numbers = array.cast(pa.float64()).to_pylist()
        except pa.ArrowException as error:
            raise ValueError(f"expected numbers, found {array.type}") from error
        size = 2 * dimensions
        if len(numbers) % size:
            raise ValueError(f"{len(numbers)} numbers are not boxes of {size} numbers")
        return [
            _box(numbers[start : start + size], layout, "", None)
            for start in range(0, len(numbers), size)
        ]
    found = []
    for row in array.to_pylist():
        if "boxes" in row:  # a Detection
            found += [_named_box(one) for one in row["boxes"] or ()]
        elif "bbox" in row:  # as detectors of the dora hub send it
            found += _hub_boxes(row, layout, dimensions)
        else:
            found.append(_named_box(row))
    return found


def _named_box(row: Mapping[str, Any]) -> Box:
    """Return a box with corner, size, confidence and label."""
    try:
        half = float(row["w"]) / 2, float(row["h"]) / 2
        center = float(row["x"]) + half[0], float(row["y"]) + half[1]
    except (KeyError, TypeError):
        raise ValueError(f"boxes need x, y, w and h; found {', '.join(row)}") from None
    return Box(center, half, str(row.get("label") or ""), row.get("confidence"))


def _hub_boxes(row: Mapping[str, Any], layout: str, dimensions: int) -> list[Box]:
    numbers = [float(one) for one in row["bbox"]]
    size = 2 * dimensions
    scores, labels = row.get("conf") or [], row.get("labels") or []
    colors = row.get("colors") or []
    return [
        _box(
            numbers[index * size : (index + 1) * size],
            layout,
            str(labels[index]) if index < len(labels) else "",
            float(scores[index]) if index < len(scores) else None,
            _rgb(colors[3 * index : 3 * index + 3]),
        )
        for index in range(len(numbers) // size)
    ]


def _box(
    numbers: Sequence[float],
    layout: str,
    label: str,
    confidence: float | None,
    color: Color | None = None,
) -> Box:
    half = len(numbers) // 2
    first, second = numbers[:half], numbers[half:]
    match layout:
        case "xyxy" | "min_max":
            center = tuple((a + b) / 2 for a, b in zip(first, second, strict=True))
            size = tuple(abs(b - a) / 2 for a, b in zip(first, second, strict=True))
        case "xywh" | "center_size":
            center, size = tuple(first), tuple(abs(one) / 2 for one in second)
        case "center_half_size":
            center, size = tuple(first), tuple(abs(one) for one in second)
        case _:
            raise ValueError(f"unknown format {layout!r} of boxes")
    return Box(center, size, label, confidence, color)


def _vector(values: Mapping[str, Any]) -> Vector:
    return float(values["x"]), float(values["y"]), float(values["z"])


def _pose(array: pa.Array, metadata: Mapping[str, Any], struct: dict[str, Any] | None) -> Pose:
    if struct is None:
        numbers = [float(one) for one in array.to_pylist()]
        if len(numbers) not in (3, 7):
            raise ValueError(
                f"a pose has 7 numbers (or 3, without orientation), not {len(numbers)}"
            )
        x, y, z, *turn = numbers
        frame = str(metadata.get("frame_id", ""))
        return Pose((x, y, z), _quaternion(turn), frame)
    header = struct.get("header") or struct
    frame = str(header.get("frame_id") or metadata.get("frame_id", ""))
    inner = struct.get("pose") or struct
    if "pose" in inner:  # ROS: with covariance
        inner = inner["pose"]
    try:
        position = inner.get("position") or inner["translation"]
        turn = inner.get("orientation") or inner["rotation"]
        quaternion = [float(turn[axis]) for axis in "xyzw"]
        return Pose(_vector(position), _quaternion(quaternion), frame)
    except (KeyError, TypeError):
        raise ValueError(f"not a pose: fields {', '.join(inner)}") from None


def _quaternion(numbers: Sequence[float]) -> Quaternion:
    if not numbers:
        return IDENTITY
    x, y, z, w = numbers
    return x, y, z, w


def _joints(array: pa.Array, metadata: Mapping[str, Any], struct: dict[str, Any] | None) -> Joints:
    if struct is None:
        positions = tuple(float(one) for one in array.to_pylist())
        names = _names(metadata, "joint_names", len(positions))
        names = names or tuple(f"joint_{number}" for number in range(len(positions)))
        return Joints(names, positions)

    def found(field: str, of_ros: str) -> Sequence[Any]:
        values: Sequence[Any] = struct.get(field) or struct.get(of_ros) or ()
        return values

    def numbers(field: str, of_ros: str) -> tuple[float, ...]:
        return tuple(float(one) for one in found(field, of_ros))

    return Joints(
        tuple(str(name) for name in found("names", "name")),
        numbers("positions", "position"),
        numbers("velocities", "velocity"),
        numbers("efforts", "effort"),
    )


def _names(metadata: Mapping[str, Any], key: str, count: int) -> tuple[str, ...]:
    """Return the names of ``count`` numbers from the metadata ``key`` or ``names``, () without."""
    names = metadata.get(key) or metadata.get("names")
    if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != count:
        return ()
    return tuple(str(name) for name in names)


def _numbers(
    array: pa.Array, metadata: Mapping[str, Any], struct: dict[str, Any] | None
) -> Numbers:
    if struct is not None:
        flat = dict(_leaves(struct))
        return Numbers(tuple(flat.values()), tuple(flat))
    try:
        values = array[:MAX_NUMBERS].cast(pa.float64(), safe=False).to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"expected numbers, found {array.type}") from error
    numbers = tuple(float("nan") if one is None else one for one in values)
    return Numbers(numbers, _names(metadata, "names", len(numbers)))


def _leaves(struct: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers of a struct with the paths of their fields."""
    found: list[tuple[str, float]] = []
    for name, value in struct.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            found.append((prefix + name, float(value)))
    return found
