"""What the inputs of a viewer node show: sources, declared types and displayed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dora_node_api.data.visual_kinds import (
    VisualKind,
    output_types,
    primitive_of_name,
    type_parameter,
    visual_kind,
)
from dora_node_api.data.visual_values import Visual, read_visual

if TYPE_CHECKING:
    from dora_node_api.events import InputEvent
    from dora_node_api.node import Node

_SIZED = (VisualKind.IMAGE, VisualKind.DEPTH, VisualKind.MASKS)


@dataclass(frozen=True, slots=True)
class ViewerInput:
    """An input that receives an output, or the ticks of a timer."""

    name: str
    source: str
    """`node/output`."""
    declared: str | None = None
    """Type of the output in the dataflow file."""


@dataclass(frozen=True, slots=True)
class ViewerMessage:
    """A message with what it shows."""

    input: ViewerInput
    array: Any
    metadata: Mapping[str, Any]
    kind: VisualKind | None
    visual: Visual | None
    """None without a kind."""
    nanoseconds: int
    """Unix time of sending."""

    @property
    def frame(self) -> str:
        """The metadata `frame_id`, empty if there is none."""
        return str(self.metadata.get("frame_id", ""))


def inputs_of(node: Node) -> dict[str, ViewerInput]:
    """Return the inputs of a node by name."""
    declared = output_types(node.dataflow_descriptor())
    found = {}
    for entry in node.run_config().inputs:
        source = entry.source
        found[entry.id] = ViewerInput(entry.id, source, declared.get(source))
    return found


def image_defaults(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of images without any, which nodes of the dora hub may send.

    Raises ValueError for `IMAGE_WIDTH` and `IMAGE_HEIGHT` that are not integers.
    """
    sizes = {}
    for name, usual in (("width", 640), ("height", 480)):
        variable = f"IMAGE_{name.upper()}"
        try:
            sizes[name] = int(environ.get(variable, usual))
        except ValueError:
            given = environ[variable]
            raise ValueError(f'{variable} is "{given}"; expected a number of pixels') from None
    return {**sizes, "encoding": "bgr8"}


def read_message(
    source: ViewerInput, event: InputEvent, defaults: Mapping[str, Any]
) -> ViewerMessage:
    """Return what a message shows; raises ValueError if it does not fit its kind.

    The kind follows from the metadata `primitive`, else from the declared type of the output,
    else from the name of the input, else from the array. ``defaults`` complete the metadata of
    images.
    """
    metadata = dict(event.metadata)
    hint = None
    if "primitive" not in metadata and source.declared is None:
        hint = primitive_of_name(source.name)
    hinted = metadata if hint is None else {**metadata, "primitive": hint}
    kind = visual_kind(event.value.type, hinted, source.declared)
    nanoseconds = int(event.timestamp.timestamp() * 1_000_000) * 1000
    visual = None
    if kind is not None:
        try:
            visual = read_visual(kind, event.value, _completed(kind, metadata, source, defaults))
        except ValueError as error:
            if kind in _SIZED and not {"width", "height"} <= metadata.keys():
                raise ValueError(f"{error}; its metadata has no width and height") from error
            raise
    return ViewerMessage(source, event.value, metadata, kind, visual, nanoseconds)


def _completed(
    kind: VisualKind, metadata: Mapping[str, Any], source: ViewerInput, defaults: Mapping[str, Any]
) -> Mapping[str, Any]:
    if kind not in _SIZED:
        return metadata
    declared = type_parameter(source.declared, "encoding")
    named = {} if declared is None else {"encoding": declared}
    return {**defaults, **named, **metadata}
