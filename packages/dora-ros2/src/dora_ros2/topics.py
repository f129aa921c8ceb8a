"""ROS 2 topics of the outputs of a dataflow, and their types; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

DEFINITION_KEY = b"ros2.definition"
"""Metadata of the Arrow schema of an imported topic: its definition, as in a schema `ros2msg`."""
TYPE_KEY = "ros2_type"
"""Metadata of messages whose type is not in the dataflow file."""
_STANDARD_TYPES = {
    "sensor_msgs/msg/Image": "std/media/v1/Image",
    "sensor_msgs/msg/CompressedImage": "std/media/v1/CompressedImage",
    "sensor_msgs/msg/JointState": "std/control/v1/JointState",
    "geometry_msgs/msg/Pose": "std/math/v1/Pose",
    "geometry_msgs/msg/PoseStamped": "std/math/v1/Pose",
    "geometry_msgs/msg/Transform": "std/math/v1/Transform",
    "geometry_msgs/msg/Twist": "std/control/v1/Twist",
    "geometry_msgs/msg/Vector3": "std/math/v1/Vector3",
    "geometry_msgs/msg/Quaternion": "std/math/v1/Quaternion",
    "nav_msgs/msg/Odometry": "std/control/v1/Odometry",
}
"""Types that are displayed and exported as another type."""


@dataclass(frozen=True, slots=True)
class RosTopic:
    name: str
    """Absolute name."""
    type: str
    """`package/msg/Name`; empty if the other side determines the type."""

    @property
    def standard_type(self) -> str | None:
        return _STANDARD_TYPES.get(self.type)


def default_port(topic: str) -> str:
    """Return the id of a topic's input or output: ``turtle1_pose`` for ``/turtle1/pose``."""
    return topic.removeprefix("~").removeprefix("/").replace("/", "_")


def node_name(node_id: str) -> str:
    """Return the name in ROS of a node of the dataflow."""
    name = re.sub(r"\W", "_", node_id, flags=re.ASCII)
    return f"_{name}" if name[0].isdigit() else name


def ros_topics(dataflow: Mapping[str, Any] | None) -> dict[str, RosTopic]:
    """Return the topics to which a dataflow's `ros2:` nodes connect outputs, by ``node/output``."""
    found: dict[str, RosTopic] = {}
    for node in (dataflow or {}).get("nodes") or []:
        bridge = node.get("ros2")
        if isinstance(bridge, Mapping):
            for output, topic in _outputs(node, bridge):
                found.setdefault(output, topic)
    return found


def _outputs(node: Mapping[str, Any], bridge: Mapping[str, Any]) -> Iterator[tuple[str, RosTopic]]:
    several = bridge.get("topics")
    inputs = node.get("inputs") or {}
    for one in several or ([bridge] if "topic" in bridge else []):
        publishes = one.get("direction") == "publish"
        port = one.get("input" if publishes else "output") or default_port(one["topic"])
        ports = list(inputs if publishes else node.get("outputs") or [])
        if several is None and len(ports) == 1:
            port = ports[0]
        topic = RosTopic(_absolute(one["topic"], node, bridge), _full(one.get("message_type")))
        if not publishes:
            yield f"{node['id']}/{port}", topic
        elif port in inputs:
            source = inputs[port]
            yield str(source if isinstance(source, str) else source["source"]), topic


def _absolute(topic: str, node: Mapping[str, Any], bridge: Mapping[str, Any]) -> str:
    if topic.startswith("/"):
        return topic
    parts = [str(bridge.get("namespace") or "").strip("/"), topic.removeprefix("~/")]
    if topic.startswith("~/"):
        parts.insert(1, bridge.get("node_name") or node_name(node["id"]))
    return "/" + "/".join(part for part in parts if part)


def _full(type_name: str | None) -> str:
    package, _, name = (type_name or "").partition("/")
    return f"{package}/msg/{name}" if name and "/" not in name else type_name or ""
