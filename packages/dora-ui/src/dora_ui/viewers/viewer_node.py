"""Reads the inputs of a node and passes what they show to a viewer until the dataflow stops."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
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
from dora_node_api.events import InputEvent, Stop

if TYPE_CHECKING:
    from dora_node_api.node import Node

CHECK_SECONDS = 1.0
"""Seconds between two checks of a viewer when no messages arrive."""
END_SECONDS = 3.0
"""Seconds for the waiting messages when the dataflow stops."""


MAX_MESSAGES = 1000
"""Most messages that wait for the viewer."""
MAX_BYTES = 32 << 20
"""Most bytes of the waiting messages of one input; the newest message is always kept."""


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
    """A message and its content for viewers."""

    input: ViewerInput
    array: Any
    metadata: Mapping[str, Any]
    kind: VisualKind | None
    visual: Visual | None
    """Content for display; None if the message has no known kind."""
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


class NewestMessages:
    """Messages in the order of arrival; those of a full input replace its oldest ones.

    ``put`` never waits, so a slow viewer does not slow the senders.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._waiting: deque[InputEvent] = deque()
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False
        self.dropped: Counter[str] = Counter()
        """Replaced messages by input."""

    def put(self, event: InputEvent) -> None:
        with self._changed:
            while self._full(event.id, event.value.nbytes):
                self._drop_oldest(event.id)
            self._waiting.append(event)
            self._count(event, 1)
            self._changed.notify()

    def get(self, timeout: float) -> InputEvent | None:
        """Return the oldest message; None after ``timeout`` seconds or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            if not self._waiting:
                return None
            oldest = self._waiting.popleft()
            self._count(oldest, -1)
            return oldest

    def close(self) -> None:
        """End waiting; messages that wait can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether it is closed and empty."""
        with self._changed:
            return self._closed and not self._waiting

    def _full(self, name: str, size: int) -> bool:
        messages = self._messages[name]
        return messages > 0 and (
            messages >= self._max_messages or self._bytes[name] + size > self._max_bytes
        )

    def _drop_oldest(self, name: str) -> None:
        for index, one in enumerate(self._waiting):
            if one.id == name:
                del self._waiting[index]
                self._count(one, -1)
                self.dropped[name] += 1
                return

    def _count(self, one: InputEvent, sign: int) -> None:
        self._messages[one.id] += sign
        self._bytes[one.id] += sign * one.value.nbytes


class CannotShow(Exception):
    """A viewer cannot start; the text is one sentence with the remedy."""


class DataViewer:
    """Shows messages. One thread calls all methods."""

    def accepts(self, source: ViewerInput) -> bool:
        """Whether a message of this input would be shown; others are not read."""
        return True

    def show(self, message: ViewerMessage) -> None:
        """Display a message. Raises ValueError if it cannot be shown."""
        raise NotImplementedError

    def check(self) -> None:
        """Check the connection; called about once a second."""

    def close(self) -> None:
        """Complete what was shown."""


class Presenter:
    """Reads messages, shows them and warns once for each input that cannot be shown."""

    def __init__(
        self,
        viewer: DataViewer,
        inputs: Mapping[str, ViewerInput],
        defaults: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self._viewer, self._inputs, self._defaults = viewer, inputs, defaults
        self._warn = warn
        self.refused: Counter[str] = Counter()
        """Messages that did not fit, by input."""

    def show(self, event: InputEvent) -> None:
        source = self._inputs[event.id]
        if not self._viewer.accepts(source):
            return
        try:
            self._viewer.show(read_message(source, event, self._defaults))
        except ValueError as error:
            self.refused[event.id] += 1
            if self.refused[event.id] == 1:
                self._warn(f"input `{event.id}`: {error}; such messages are left out")


def run_viewer(start: Callable[[Node], DataViewer], *, keeps_all: bool = False) -> None:
    """Run a node until the dataflow stops; exit the process with 1 if the viewer cannot start.

    ``keeps_all``: show each message before the next is received, instead of dropping the oldest
    messages of a slow viewer.
    """
    from dora_node_api.node import Node

    try:
        defaults = image_defaults(os.environ)
        node = Node()
        viewer = start(node)
    except (CannotShow, ValueError) as error:
        sys.exit(str(error))
    with node:
        display = Presenter(viewer, inputs_of(node), defaults, lambda text: node.log("warn", text))
        if keeps_all:
            for event in _messages(node):
                display.show(event)
            viewer.close()
            ended, dropped = True, Counter[str]()
        else:
            ended, dropped = _show_newest(node, viewer, display)
        for name, count in sorted((display.refused + dropped).items()):
            node.log("info", f"input `{name}`: {count} messages were not shown")
    if not ended:
        # A normal exit would wait for the library of the viewer, which is blocked in a call.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _messages(node: Node) -> Iterator[InputEvent]:
    """Yield the messages of outputs until the dataflow stops."""
    for event in node.events():
        match event:
            case Stop():
                return
            case InputEvent(value=value) if str(value.type) != "null":
                yield event


def _show_newest(node: Node, viewer: DataViewer, display: Presenter) -> tuple[bool, Counter[str]]:
    """Return whether the viewer was closed in time, and the dropped messages by input."""
    waiting = NewestMessages()

    def show() -> None:
        try:
            while not waiting.ended:
                event = waiting.get(CHECK_SECONDS)
                if event is not None:
                    display.show(event)
                viewer.check()
            viewer.close()
        except BaseException:  # noqa: BLE001 - the node must not run on without its viewer
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    thread = threading.Thread(target=show, name="display", daemon=True)
    thread.start()
    for event in _messages(node):
        waiting.put(event)
    waiting.close()
    thread.join(END_SECONDS)
    return not thread.is_alive(), waiting.dropped
