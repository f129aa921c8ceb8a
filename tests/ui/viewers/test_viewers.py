"""Decisions of nodes that show their inputs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from dora_node_api.data.visual_kinds import VisualKind
from dora_node_api.data.visual_values import Image
from dora_node_api.events import InputEvent
from dora_recordings.foxglove_messages import json_message
from dora_ui.viewers.foxglove_node import read_address as foxglove_address
from dora_ui.viewers.rerun_node import (
    OperatingMode,
    read_address,
    read_mode,
)
from dora_ui.viewers.viewer_node import (
    CannotShow,
    DataViewer,
    NewestMessages,
    Presenter,
    ViewerInput,
    ViewerMessage,
    image_defaults,
    read_message,
)


def event(name: str, size: int = 1, metadata: Mapping[str, Any] | None = None) -> InputEvent:
    stamp = datetime(2026, 1, 1, tzinfo=UTC)
    value = pa.array(range(size), pa.uint8())
    return InputEvent(name, value, {"timestamp": stamp, **(metadata or {})})


def test_a_full_input_replaces_its_own_oldest_messages() -> None:
    waiting = NewestMessages(max_messages=2)
    for name, size in (("a", 1), ("b", 9), ("a", 2), ("a", 3)):
        waiting.put(event(name, size))
    waiting.close()
    found = [waiting.get(0), waiting.get(0), waiting.get(0)]
    assert [(one.id, len(one.value)) for one in found if one] == [("b", 9), ("a", 2), ("a", 3)]
    assert waiting.get(0) is None
    assert waiting.ended
    assert waiting.dropped == {"a": 1}


def test_large_messages_count_by_their_bytes_and_the_newest_stays() -> None:
    waiting = NewestMessages(max_bytes=10)
    for size in (6, 4, 1, 100):
        waiting.put(event("a", size))
    only = waiting.get(0)
    assert only is not None
    assert len(only.value) == 100
    assert waiting.dropped == {"a": 3}


class Shown(DataViewer):
    def __init__(self) -> None:
        self.messages: list[ViewerMessage] = []

    def accepts(self, source: ViewerInput) -> bool:
        return source.name != "ignored"

    def show(self, message: ViewerMessage) -> None:
        self.messages.append(message)


def test_an_input_that_does_not_fit_is_warned_about_once() -> None:
    warnings: list[str] = []
    viewer = Shown()
    inputs = {name: ViewerInput(name, f"camera/{name}") for name in ("image", "ignored")}
    display = Presenter(viewer, inputs, image_defaults({}), warnings.append)
    for one in (event("image"), event("image"), event("ignored")):
        display.show(one)
    display.show(event("image", 6, {"width": 2, "height": 1}))
    (message,) = viewer.messages
    assert message.visual == Image(2, 1, "bgr8", bytes(range(6)))
    assert message.nanoseconds == 1767225600_000000000
    assert display.refused == {"image": 2}
    assert warnings == [
        "input `image`: an image of 640 x 480 pixels in bgr8 has 921600 bytes, this one 1; its"
        " metadata has no width and height; such messages are left out"
    ]


@pytest.mark.parametrize(
    ("source", "metadata", "kind"),
    [
        (ViewerInput("left_points3d", "a/b"), {}, VisualKind.POINTS_3D),
        (ViewerInput("left_points3d", "a/b"), {"primitive": "series"}, VisualKind.NUMBERS),
        (ViewerInput("image", "a/b", "std/core/v1/UInt8"), {}, VisualKind.NUMBERS),
        (ViewerInput("image_text", "a/b"), {}, VisualKind.NUMBERS),
    ],
)
def test_primitive_type_and_name_decide_in_this_order(
    source: ViewerInput, metadata: dict[str, Any], kind: VisualKind
) -> None:
    found = read_message(source, event(source.name, 3, metadata), {})
    assert found.kind is kind


def test_the_size_of_images_without_metadata_comes_from_the_environment() -> None:
    defaults = image_defaults({"IMAGE_WIDTH": "2", "IMAGE_HEIGHT": "1"})
    found = read_message(ViewerInput("image", "a/b"), event("image", 6), defaults)
    assert found.visual == Image(2, 1, "bgr8", bytes(range(6)))
    with pytest.raises(ValueError, match='IMAGE_WIDTH is "x"; expected a number of pixels'):
        image_defaults({"IMAGE_WIDTH": "x"})


def test_settings_of_rerun() -> None:
    assert read_mode({}) is OperatingMode.SPAWN
    assert read_mode({"OPERATING_MODE": "save"}) is OperatingMode.SAVE
    assert read_address({}).url == "rerun+http://127.0.0.1:9876/proxy"
    url = "rerun+http://desk:1234/proxy"
    assert read_address({"RERUN_SERVER_ADDR": "desk:1234"}).url == url
    assert read_address({"RERUN_SERVER_ADDR": url}).port == 1234
    with pytest.raises(CannotShow, match="expected one of SPAWN, CONNECT, SAVE"):
        read_mode({"OPERATING_MODE": "SHOW"})
    with pytest.raises(CannotShow, match='RERUN_SERVER_ADDR is "desk"; expected HOST:PORT'):
        read_address({"RERUN_SERVER_ADDR": "desk"})


def test_settings_of_foxglove() -> None:
    assert foxglove_address({}) == ("127.0.0.1", 8765)
    with pytest.raises(CannotShow, match='FOXGLOVE_PORT is "70000"'):
        foxglove_address({"FOXGLOVE_PORT": "70000"})


def test_times_that_python_cannot_represent_are_json() -> None:
    far = pa.array([2**62], pa.timestamp("s"))
    assert (
        json_message(far, {}) == b'{"data": ["<value out of range: %d>"], "metadata": {}}' % 2**62
    )
