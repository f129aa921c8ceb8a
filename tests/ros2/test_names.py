"""The classes of ROS 2 in the package `dora`."""

from __future__ import annotations

import dora


def test_unmodified_nodes_find_the_classes() -> None:
    names: dict[str, object] = {}
    exec("from dora import *", names)
    assert {"Node", "Ros2Node", "Ros2Context"} <= names.keys()
    assert dora.Ros2Context.__module__ == "dora_ros2.api"
    assert "Ros2Context" in dir(dora)
