"""The kind of nodes `ros2:` as a plug-in; for dora itself, not for nodes.

Runners import it: what is slow is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dora_config.dataflow.node_kinds import NodeKind
from dora_config.yaml.document import KeyPath
from dora_ros2.block import MAX_TOPICS, MODES, Ros2, bridge_problems, with_ports
from dora_ros2.errors import Ros2Error


def _resolved(bridge: Ros2, inputs: list[str], outputs: list[str]) -> dict[str, Any]:
    return with_ports(bridge, inputs, outputs).model_dump(mode="json", exclude_none=True)


def _warnings(bridge: Ros2, folder: Path, env: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each type without a definition on this machine."""
    from dora_ros2.types import Types

    if "AMENT_PREFIX_PATH" in env:  # its folders are on the machine of the node
        return
    known: Any = Types([folder])
    for path, kind, name in bridge.types():
        try:
            getattr(known, kind)(name)
        except Ros2Error as error:
            yield path, str(error)


def _types(node: Mapping[str, Any]) -> dict[str, str]:
    """Return the types of `dora` that messages of topics are displayed as."""
    from dora_ros2.topics import ros_topics

    topics = ros_topics({"nodes": [node]})
    return {name: kind for name, topic in topics.items() if (kind := topic.standard_type)}


def _add_rules(schema: dict[str, Any]) -> None:
    """Allow one mode; require type and role of services and actions, and few topics."""

    def has(field: str) -> dict[str, Any]:
        return {"required": [field], "properties": {field: {"not": {"type": "null"}}}}

    schema["oneOf"] = [has(mode) for mode in MODES]
    schema["allOf"] = [
        {"if": has(mode), "then": {"allOf": [has(f"{mode}_type"), has("role")]}}
        for mode in ("service", "action")
    ]
    schema["properties"]["topics"]["anyOf"][0] |= {"minItems": 1, "maxItems": MAX_TOPICS}


KIND = NodeKind(
    model=Ros2,
    module="dora_ros2",
    variable="DORA_ROS2",
    needs=("dora_ros2",),
    problems=bridge_problems,
    resolve=_resolved,
    warnings=_warnings,
    types=_types,
    add_rules=_add_rules,
)
