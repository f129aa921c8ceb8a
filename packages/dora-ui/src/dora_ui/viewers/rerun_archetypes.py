"""Displayed values as archetypes of Rerun."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dora_node_api.data.visual_kinds import VisualKind
from dora_node_api.data.visual_values import (
    IDENTITY,
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

_COLOR_MODELS = {
    "rgb8": ("rgb", "u8"),
    "bgr8": ("bgr", "u8"),
    "rgba8": ("rgba", "u8"),
    "bgra8": ("bgra", "u8"),
    "mono8": ("l", "u8"),
    "mono16": ("l", "u16"),
}
_GREEN = (0, 255, 0)
_RADIUS = 0.01
"""Radius in metres of points and lines without a radius."""


@dataclass(frozen=True, slots=True)
class Entity:
    """One archetype and the path that it is logged to."""

    path: str
    archetype: Any


def entities(
    name: str, kind: VisualKind, visual: Visual, metadata: Mapping[str, Any]
) -> Iterator[Entity]:
    """Yield the entities of a message of the input ``name``.

    Needs rerun-sdk. Raises ValueError for invalid metadata of a camera.
    """
    import rerun as rr

    match visual:
        case Image() if kind is VisualKind.DEPTH:
            yield from _depth(name, visual, metadata)
        case Image() if kind is VisualKind.MASKS:
            yield Entity(name, rr.SegmentationImage(_pixels(visual, "uint8")))
        case Image():
            yield Entity(name, _image(visual))
        case EncodedImage():
            encoded = rr.EncodedImage(contents=visual.data, media_type=f"image/{visual.format}")
            yield Entity(name, encoded)
        case Points(dimensions=2):
            yield Entity(name, rr.Points2D(visual.rows, colors=visual.color))
        case Points():
            radii = visual.radii or (_RADIUS,)
            yield Entity(name, rr.Points3D(visual.rows, radii=radii, colors=visual.color))
        case Boxes():
            yield Entity(name, _boxes(visual, 2 if kind is VisualKind.BOXES_2D else 3))
        case Lines():
            strips = rr.LineStrips3D(
                [visual.points.rows],
                colors=[visual.points.color or _GREEN],
                radii=[visual.radius or _RADIUS],
            )
            yield Entity(name, strips)
        case Pose():
            turn = rr.Quaternion(xyzw=visual.orientation)
            yield Entity(name, rr.Transform3D(translation=visual.position, quaternion=turn))
        case Joints():
            for joint, position in zip(visual.names, visual.positions, strict=False):
                yield Entity(f"{name}/{path_part(joint)}", rr.Scalars([position]))
        case Numbers():
            names = visual.names or range(len(visual.values))
            separator = "/" if visual.names else "_"
            for part, value in zip(names, visual.values, strict=True):
                path = f"{name}{separator}{path_part(str(part))}"
                yield Entity(path, rr.Scalars([value]))
        case Text():
            yield Entity(name, rr.TextLog(visual.text, level=rr.TextLogLevel.INFO))


def path_part(name: str) -> str:
    """Return a name as one part of an entity path, in which some characters are escaped."""
    return "".join(one if one.isalnum() or one in "_-." else f"\\{one}" for one in name)


def _image(image: Image) -> Any:
    import rerun as rr

    size = {"width": image.width, "height": image.height}
    if image.encoding in _COLOR_MODELS:
        model, datatype = _COLOR_MODELS[image.encoding]
        return rr.Image(bytes=image.data, color_model=model, datatype=datatype, **size)
    data = image.data
    if image.encoding != "yuyv":  # for uyvy, also named yuv422, the bytes of each pair are swapped
        swapped = bytearray(len(data))
        swapped[0::2], swapped[1::2] = data[1::2], data[0::2]
        data = bytes(swapped)
    return rr.Image(bytes=data, pixel_format="YUY2", **size)


def _pixels(image: Image, dtype: str) -> Any:
    import numpy as np

    return np.frombuffer(image.data, dtype).reshape(image.height, image.width)


def _depth(name: str, image: Image, metadata: Mapping[str, Any]) -> Iterator[Entity]:
    """Yield the image; with the pose and focal length of the camera, in space."""
    import rerun as rr

    depth = rr.DepthImage(_pixels(image, "<f4"), meter=1.0)
    if "focal" not in metadata:
        yield Entity(name, depth)
        return
    position = _floats(metadata, "camera_position", 3, (0.0, 0.0, 0.0))
    turn = _floats(metadata, "camera_orientation", 4, IDENTITY)
    center = _floats(metadata, "principal_point", 2, (image.width / 2, image.height / 2))
    yield Entity(name, rr.Transform3D(translation=position, quaternion=rr.Quaternion(xyzw=turn)))
    pinhole = rr.Pinhole(
        focal_length=_floats(metadata, "focal", 2, ()),
        principal_point=center,
        width=image.width,
        height=image.height,
        camera_xyz=rr.ViewCoordinates.RDF,
    )
    yield Entity(name, pinhole)
    yield Entity(f"{name}/raw", depth)


def _floats(
    metadata: Mapping[str, Any], name: str, count: int, missing: Sequence[float]
) -> list[float]:
    given = metadata.get(name, missing)
    try:
        numbers = [float(one) for one in given]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != count:
        raise ValueError(f"the metadata {name} is {given!r}; expected {count} numbers")
    return numbers


def _boxes(boxes: Boxes, dimensions: int) -> Any:
    import rerun as rr

    if not boxes.boxes:
        return rr.Clear(recursive=False)
    colors = None
    if boxes.color or any(box.color for box in boxes.boxes):
        colors = [box.color or boxes.color or _GREEN for box in boxes.boxes]
    labelled = any(box.label for box in boxes.boxes)
    values: dict[str, Any] = {
        "centers": [box.center for box in boxes.boxes],
        "half_sizes": [box.half_size for box in boxes.boxes],
        "labels": [box.label for box in boxes.boxes] if labelled else None,
        "colors": colors,
    }
    if dimensions == 2:
        return rr.Boxes2D(**values)
    return rr.Boxes3D(**values, fill_mode="solid" if boxes.solid else None)
