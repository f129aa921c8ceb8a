"""Messages as lines of JSON, shortened if they are long; uses Arrow."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from pyarrow import types

from dora_daemon.inspection.pictures import NotShown, PictureLimits, picture
from dora_node_api.data.metadata import utc_datetime
from dora_node_api.data.python_values import python_value, python_values
from dora_node_api.data.visual_kinds import VisualKind, primitive_of_name, visual_kind
from dora_node_api.data.visual_values import Box, Boxes, Image, Points, read_visual

if TYPE_CHECKING:
    from dora_node_api.transport.consumer.delivery import Delivery

_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Characters that JSON does not escape, but terminals interpret."""
MIN_ELEMENT = 4
"""Approximate minimum of characters of JSON per element."""
MAX_TYPE = 200
"""Characters of the name of an Arrow type."""
_MAX_UNSPLIT = 65_536
"""Bytes of values that cannot be shortened; larger ones are left out."""


MAX_BOXES: Final = 500
"""Boxes of a message that are drawn."""
MAX_POINTS: Final = 2000
"""Points of a message that are drawn."""
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
    """Return the shapes that viewers draw over a picture, as JSON; None: no shapes.

    They are at most `MAX_BOXES` or `MAX_POINTS`.
    """
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
    """Return the kind by `primitive`, else by the fields of the standard types, else by a
    `primitive` in the name of the output, such as `left_boxes2d`.
    """
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
        case _:
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


def render(name: str, delivery: Delivery, limit: int, pictures: PictureLimits | None = None) -> str:
    """Return ``{"timestamp", "name", "data", "metadata"}``, of about ``limit`` bytes at most.

    If ``data`` or ``metadata`` is shortened, ``shortened`` contains its real size. With
    ``pictures``, an image has a ``picture`` and no data, or else ``unshown``, the reason; boxes,
    points and masks have an ``overlay``. Raises BrokenRecord.
    """
    metadata = delivery.metadata
    if metadata.get("timestamp") == utc_datetime(delivery.timestamp_ns):
        del metadata["timestamp"]  # not set by the sender, and shown as a field of its own
    array = delivery.value
    message: dict[str, Any] = {
        "timestamp": delivery.timestamp_ns // 1_000_000,
        "name": name,
        "data": None,
        "metadata": metadata,
    }
    if len(_dumps(metadata)) > limit:
        message["metadata"] = {}
        message["shortened"] = {"metadata": "left out"}
    room = limit // MIN_ELEMENT
    try:
        image = None if pictures is None else picture(array, metadata, pictures)
    except NotShown as reason:
        image, message["unshown"] = None, str(reason)
    if image is not None:
        message["picture"] = image
        limit += len(image["data"])
        room = 0
    drawn = None if pictures is None else overlay(name, array, metadata, pictures)
    if drawn is not None:
        message["overlay"] = drawn
        limit += len(_dumps(drawn))
        room = 0 if "mask" in drawn else room
    while True:
        cut = Cut(room)
        message["data"] = cut.values(array) if room else []
        if cut.shortened or not room:
            kind = str(array.type)[:MAX_TYPE]
            facts = {"elements": len(array), "type": kind, "bytes": delivery.nbytes}
            message["shortened"] = {**message.get("shortened", {}), **facts}
        text = _dumps(message)
        if len(text) <= limit or not room:
            return text
        room = min(room // 2, room * limit // len(text))


class Cut:
    """Converts values of arrays to Python objects, at most ``room`` objects."""

    def __init__(self, room: int) -> None:
        self._left = room
        self.shortened = False

    def values(self, array: Any) -> list[Any]:
        """Return the same as ``to_pylist``, for as many elements as there is room for."""
        kind = array.type
        if isinstance(array, pa.ExtensionArray):
            return self.values(array.storage)
        if types.is_dictionary(kind):
            return self.values(self._head(array).dictionary_decode())
        if types.is_struct(kind):
            return self._one_by_one(array, self._struct)
        if (
            types.is_list(kind)
            or types.is_large_list(kind)
            or types.is_fixed_size_list(kind)
            or types.is_map(kind)
        ):
            return self._one_by_one(array, self._list)
        if types.is_string(kind) or types.is_large_string(kind):
            return self._one_by_one(array, self._text)
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
            return self._one_by_one(array, self._bytes)
        if types.is_primitive(kind) or types.is_null(kind):
            return self._converted(array)
        # Unions and other types whose elements cannot be shortened.
        if array.nbytes > _MAX_UNSPLIT:
            self.shortened = True
            return []
        return self._converted(array)

    def _converted(self, array: Any) -> list[Any]:
        taken = python_values(self._head(array))
        self._left -= len(taken)
        return taken

    def _head(self, array: Any) -> Any:
        if len(array) <= self._left:
            return array
        self.shortened = True
        return array.slice(0, max(self._left, 0))

    def _one_by_one(self, array: Any, value: Any) -> list[Any]:
        taken: list[Any] = []
        for scalar in array:
            if self._left <= 0:
                self.shortened = True
                break
            self._left -= 1
            taken.append(value(scalar) if scalar.is_valid else None)
        return taken

    def _struct(self, scalar: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in scalar.items():
            self._left -= 1
            found[name] = self._scalar(value)
        return found

    def _list(self, scalar: Any) -> list[Any]:
        return self.values(scalar.values)

    def _scalar(self, scalar: Any) -> Any:
        """Return the value of a field of a struct."""
        if not scalar.is_valid:
            return None
        kind = scalar.type
        if types.is_struct(kind):
            return self._struct(scalar)
        if types.is_nested(kind) and hasattr(scalar, "values"):
            return self._list(scalar)
        if types.is_string(kind) or types.is_large_string(kind):
            return self._text(scalar)
        if types.is_binary(kind) or types.is_large_binary(kind):
            return self._bytes(scalar)
        return python_value(scalar)

    def _text(self, scalar: Any) -> str:
        return self._prefix(scalar).decode("utf-8", "ignore")

    def _bytes(self, scalar: Any) -> list[int]:
        return list(self._prefix(scalar))

    def _prefix(self, scalar: Any) -> bytes:
        whole = memoryview(scalar.as_buffer())
        most = max(self._left, 1)
        if len(whole) > most:
            self.shortened = True
        self._left -= min(len(whole), most)
        return bytes(whole[:most])


def _dumps(value: Any) -> str:
    try:
        return _encode(value)
    except ValueError:
        return _encode(_finite(value))


def _encode(value: Any) -> str:
    text = json.dumps(
        value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot represent, with null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return list(bytes(value))
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
