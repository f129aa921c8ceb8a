"""The `ros2:` block of a node: a bridge to ROS 2 topics, a service or an action; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from dora_config.dataflow.fields import (
    OutputIdField,
    SecondsField,
    Text,
    TextField,
    Written,
    optional,
    wrong,
)
from dora_config.errors import Problem
from dora_config.yaml.document import KeyPath, Place
from dora_ros2.topics import default_port

MAX_TOPICS = 64
"""Maximum number of topics of one bridge."""
MODES = ("topic", "topics", "service", "action")
_PART = r"[A-Za-z_][A-Za-z0-9_]*"
_NAME = rf"^(/|~/)?{_PART}(/{_PART})*$"
_NAMESPACE = rf"^/?({_PART}(/{_PART})*)?$"
_TYPE = r"^[A-Za-z][A-Za-z0-9_]*(/{})?/[A-Za-z][A-Za-z0-9_]*$"


def _matching(pattern: str, expected: str) -> tuple[AfterValidator, Any]:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise wrong(f'"{value}" is not valid; expected {expected}')
        return value

    # YAML never reads a type name as a number, nor one with a slash as a boolean
    kinds = ["string"] if "package" in expected else ["string", "boolean"]
    return AfterValidator(check), WithJsonSchema({"type": kinds, "pattern": pattern})


_NAME_RULE = "letters, digits and '_' between single slashes, and no part begins with a digit"
_RosName = Annotated[Text, *_matching(_NAME, _NAME_RULE)]
_Namespace = Annotated[Text, *_matching(_NAMESPACE, _NAME_RULE)]
_NodeName = Annotated[
    Text, *_matching(f"^{_PART}$", "letters, digits and '_', and no digit at the start")
]
_MessageType = Annotated[Text, *_matching(_TYPE.format("msg"), "package/Name or package/msg/Name")]
_ServiceType = Annotated[Text, *_matching(_TYPE.format("srv"), "package/Name or package/srv/Name")]
_ActionType = Annotated[
    Text, *_matching(_TYPE.format("action"), "package/Name or package/action/Name")
]
_Direction = Literal["subscribe", "publish"]
_Role = Literal["client", "server"]


class Ros2Qos(Written):
    """Quality of service of ROS 2 topics."""

    reliable: bool | None = optional("Reliable instead of best effort (default false).")
    durability: Literal["volatile", "transient_local"] | None = optional(
        "Whether late subscribers get earlier messages (default volatile)."
    )
    liveliness: Literal["automatic", "manual_by_participant", "manual_by_topic"] | None = optional(
        "How a publisher shows that it is alive (default automatic)."
    )
    lease_duration: SecondsField | None = optional(
        "Seconds after which a silent publisher counts as dead (default never)."
    )
    max_blocking_time: SecondsField | None = optional(
        "Longest wait of a reliable publisher in seconds; a publisher here never waits."
    )
    keep_last: Annotated[int, Field(ge=1, le=10_000)] | None = optional(
        "Messages that are kept (default 1)."
    )
    keep_all: bool | None = optional("Keep all messages instead of the last ones.")


class Ros2BridgeTopic(Written):
    """One topic of a bridge with several."""

    topic: _RosName = Field(description="Name of the topic.")
    message_type: _MessageType | None = optional(
        "Type of the messages (default: the type of the other side)."
    )
    direction: _Direction | None = optional("subscribe (default) or publish.")
    output: OutputIdField | None = optional(
        "Output of a subscription (default: the name of the topic with '_' for '/')."
    )
    input: OutputIdField | None = optional(
        "Input of a publisher (default: the name of the topic with '_' for '/')."
    )
    qos: Ros2Qos | None = optional("Replaces the `qos` of the bridge.")

    @property
    def publishes(self) -> bool:
        return self.direction == "publish"

    @property
    def port(self) -> str:
        """Id of the input or output, by default made of the topic's name."""
        written = self.input if self.publishes else self.output
        return written or default_port(self.topic)


class Ros2BridgeTransport(Written):
    """Transport of a bridge to ROS 2."""

    kind: Literal["zenoh", "dds"] | None = optional(
        "zenoh (rmw_zenoh) or dds; by default zenoh if it is configured, if a router answers, or"
        " without DDS."
    )
    compatibility: Literal["humble", "rep2016"] | None = optional(
        "For zenoh: humble, or rep2016 for newer versions (default: as the other nodes)."
    )
    config_uri: TextField | None = optional("For zenoh: path of a session file.")


class Ros2(Written):
    """A bridge to ROS 2 with exactly one of `topic`, `topics`, `service` and `action`."""

    topic: _RosName | None = optional("Name of a topic.")
    message_type: _MessageType | None = optional(
        "Type of the topic's messages (default: the type of the other side)."
    )
    direction: _Direction | None = optional("Of the topic: subscribe (default) or publish.")
    topics: list[Ros2BridgeTopic] | None = optional(f"Up to {MAX_TOPICS} topics.")
    service: _RosName | None = optional("Name of a service.")
    service_type: _ServiceType | None = optional("Type of the service.")
    action: _RosName | None = optional("Name of an action.")
    action_type: _ActionType | None = optional("Type of the action.")
    role: _Role | None = optional("Of a service or action: client or server.")
    qos: Ros2Qos | None = optional("Quality of service of the topics.")
    namespace: _Namespace | None = optional("Namespace of the ROS node (default /).")
    node_name: _NodeName | None = optional("Name of the ROS node (default: the id of the node).")
    transport: Ros2BridgeTransport | None = optional("How ROS 2 is reached.")

    def types(self) -> Iterator[tuple[KeyPath, Literal["message", "service", "action"], str]]:
        """Yield the names of types, with their places."""
        for index, topic in enumerate(self.topics or ()):
            if topic.message_type:
                yield ("topics", index, "message_type"), "message", topic.message_type
        if self.message_type:
            yield ("message_type",), "message", self.message_type
        if self.service_type:
            yield ("service_type",), "service", self.service_type
        if self.action_type:
            yield ("action_type",), "action", self.action_type


def with_ports(bridge: Ros2, inputs: list[str], outputs: list[str]) -> Ros2:
    """Return the bridge with a list `topics` in place of `topic`, each with its port."""
    if bridge.topic is not None:
        ports = inputs if bridge.direction == "publish" else outputs
        port = ports[0] if len(ports) == 1 else default_port(bridge.topic)
        single = Ros2BridgeTopic(
            topic=bridge.topic, message_type=bridge.message_type, direction=bridge.direction
        )
        topics = [_with_port(single, port)]
    elif bridge.topics is not None:
        topics = [_with_port(topic, topic.port) for topic in bridge.topics]
    else:
        return bridge
    single_fields = {"topic": None, "message_type": None, "direction": None}
    return bridge.model_copy(update={**single_fields, "topics": topics})


def _with_port(topic: Ros2BridgeTopic, port: str) -> Ros2BridgeTopic:
    return topic.model_copy(update={"input" if topic.publishes else "output": port})


def bridge_problems(
    bridge: Ros2, inputs: list[str], outputs: list[str], place: Place, where: str
) -> Iterator[Problem]:
    """Yield problems between the fields of a bridge, its inputs and its outputs."""
    where = f"{where}: ros2"
    modes = [name for name in MODES if getattr(bridge, name) is not None]
    if len(modes) != 1:
        found = " and ".join(f"`{name}`" for name in modes) or "none of them"
        message = f"{where}: expected exactly one of {', '.join(MODES)}, found {found}"
        yield place.at(*modes[1:2]).problem(message, at_key=bool(modes))
        return
    mode = modes[0]
    for field in sorted({name for names in _FIELDS_OF.values() for name in names}):
        if getattr(bridge, field) is not None and field not in _FIELDS_OF[mode]:
            message = f"{where}: `{field}` has no effect beside `{mode}`"
            yield place.at(field).problem(message, at_key=True, severity="warning")
    if mode in ("topic", "topics"):
        yield from _topic_problems(bridge, inputs, outputs, place, where)
        return
    for field in (f"{mode}_type", "role"):
        if getattr(bridge, field) is None:
            yield place.problem(f"{where}: `{mode}` needs `{field}`")
    noun = "an action" if mode == "action" else "a service"
    if bridge.transport is not None and bridge.transport.kind == "dds":
        message = f"{where}: {noun} needs the transport zenoh; dds has only topics"
        yield place.at("transport", "kind").problem(message)
    if bridge.role is None:
        return
    received, sent, name = _SIDES[mode, bridge.role]
    for declared, side, what in ((inputs, "input", received), (outputs, "output", sent)):
        if not declared:
            yield place.problem(f"{where}: {noun} {bridge.role} needs an {side} for {what}")
    others = [one for one in outputs if one not in ("feedback", "cancel")]
    used = {name if name in outputs else next(iter(others), name)}
    if mode == "action":
        used.add("feedback" if bridge.role == "client" else "cancel")
    for output in outputs:
        if output not in used:
            message = f'{where}: a {mode} {bridge.role} does not use the output "{output}"'
            yield place.problem(message, severity="warning")


_SIDES = {
    ("service", "client"): ("requests", "responses", "response"),
    ("service", "server"): ("responses", "requests", "request"),
    ("action", "client"): ("goals", "results", "result"),
    ("action", "server"): ("results", "goals", "goal"),
}
"""Names for inputs, for outputs, and of the preferred output; otherwise the first one is used."""
_FIELDS_OF: dict[str, tuple[str, ...]] = {
    "topic": ("message_type", "direction"),
    "service": ("service_type", "role"),
    "action": ("action_type", "role"),
    "topics": (),
}


def _topic_problems(
    bridge: Ros2, inputs: list[str], outputs: list[str], place: Place, where: str
) -> Iterator[Problem]:
    if bridge.topics is not None and not 1 <= len(bridge.topics) <= MAX_TOPICS:
        count = len(bridge.topics)
        message = f"{where}: `topics` must have 1 to {MAX_TOPICS} entries, found {count}"
        yield place.at("topics").problem(message)
    topics = with_ports(bridge, inputs, outputs).topics or []
    for declared, side, publishes in ((inputs, "input", True), (outputs, "output", False)):
        used = {topic.port for topic in topics if topic.publishes is publishes}
        for port in declared:
            if port not in used:
                message = f'{where}: the {side} "{port}" belongs to no topic'
                yield place.problem(message, severity="warning")
    for index, topic in enumerate(topics):
        side, declared = ("input", inputs) if topic.publishes else ("output", outputs)
        if topic.port in declared:
            continue
        has = f"has {', '.join(declared)}" if declared else f"has no {side}s"
        needs = f'the {side} "{topic.port}"'
        if bridge.topics is None and len(declared) > 1:
            needs = f'one {side}, or one called "{topic.port}"'
        message = f'{where}: topic "{topic.topic}" needs {needs}; the node {has}'
        yield place.at(*("topic",) if bridge.topics is None else ("topics", index)).problem(message)
