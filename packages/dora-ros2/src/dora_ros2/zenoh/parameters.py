"""Parameters of ROS nodes: their values, and the six services that serve those of a node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from dora_ros2.connection import Node
from dora_ros2.errors import Ros2Error
from dora_ros2.types import ServiceType, Types
from dora_ros2.zenoh.endpoints import answering
from dora_ros2.zenoh.tokens import Qos, stamp

Value: TypeAlias = bool | int | float | str | bytes | Sequence[bool | int | float | str] | None
"""Value of a parameter; None: not set."""
OnSet = Callable[[Mapping[str, Value]], str | None]
_KINDS = ("bool", "integer", "double", "string", "byte_array")
_LISTS = ("bool_array", "integer_array", "double_array", "string_array")
_FIELDS = ("", *(f"{kind}_value" for kind in (*_KINDS, *_LISTS)))
"""Fields of `rcl_interfaces/msg/ParameterValue` by type."""
_SCALARS: Mapping[type, int] = {bool: 1, int: 2, float: 3, str: 4, bytes: 5}


def parameter_type(value: Value) -> int:
    """Return the number of a value's type; empty lists are lists of texts. Raises Ros2Error."""
    if value is None:
        return 0
    if type(value) in _SCALARS:
        return _SCALARS[type(value)]
    if isinstance(value, list | tuple):
        kinds = {type(item) for item in value} or {str}
        kind = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else None
        if kind in (bool, int, float, str):
            return _SCALARS[kind] + 5
    raise Ros2Error(f"{value!r} is not a value of a ROS parameter")


def encoded(value: Value) -> dict[str, Any]:
    """Return a value as `rcl_interfaces/msg/ParameterValue`. Raises Ros2Error."""
    kind = parameter_type(value)
    return {"type": kind, _FIELDS[kind]: value} if kind else {"type": 0}


def decoded(message: Mapping[str, Any]) -> Value:
    """Return the value of a `rcl_interfaces/msg/ParameterValue`."""
    kind = message["type"]
    if not 0 < kind < len(_FIELDS):
        return None
    value: Value = message[_FIELDS[kind]]
    return bytes(value) if kind == _SCALARS[bytes] else value  # type: ignore[arg-type]


class ParameterServer:
    """Serves parameters of a node, so that `ros2 param` can list, read and change them.

    `on_set` is called before values change and returns why they may not, or None.
    """

    def __init__(
        self,
        node: Node,
        types: Types,
        values: Mapping[str, Value],
        *,
        on_set: OnSet | None = None,
    ) -> None:
        """Announce the services if it has any. Raises InvalidName, SessionError, Ros2Error."""
        self.values = dict(values)
        for value in values.values():
            parameter_type(value)
        self._node = node
        self._on_set = on_set
        self._lock = threading.RLock()
        self._event = types.message("rcl_interfaces/msg/ParameterEvent")
        self._events = node.publisher("/parameter_events", self._event, Qos(depth=1000))
        answers: Mapping[str, Callable[[Any], Mapping[str, Any]]] = {
            "describe_parameters": lambda asked: {
                "descriptors": [
                    {"name": name, "type": parameter_type(self.values.get(name))}
                    for name in asked["names"]
                ]
            },
            "get_parameter_types": lambda asked: {
                "types": [parameter_type(self.values.get(name)) for name in asked["names"]]
            },
            "get_parameters": lambda asked: {
                "values": [encoded(self.values.get(name)) for name in asked["names"]]
            },
            "list_parameters": self._list,
            "set_parameters": lambda asked: {
                "results": [self._outcome([one]) for one in asked["parameters"]]
            },
            "set_parameters_atomically": lambda asked: {
                "result": self._outcome(asked["parameters"])
            },
        }
        for word, answer in answers.items() if node.has_services else ():
            node.service_server(f"~/{word}", parameter_service(types, word), answering(answer))
        self._publish_event("new_parameters", values)

    def set(self, values: Mapping[str, Value]) -> str | None:
        """Change declared parameters together; return why it was refused."""
        with self._lock:
            for name, value in values.items():
                if name not in self.values:
                    return f'parameter "{name}" is not declared'
                before, after = parameter_type(self.values[name]), parameter_type(value)
                if before not in (0, after):
                    return f'parameter "{name}" has another type ({before}, not {after})'
            refused = self._on_set(values) if self._on_set is not None else None
            if refused is None:
                self.values.update(values)
        if refused is None:
            self._publish_event("changed_parameters", values)
        return refused

    def _list(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        depth = asked["depth"]

        def listed(name: str, prefix: str) -> bool:
            if prefix and name != prefix and not name.startswith(f"{prefix}."):
                return False
            return not depth or name[len(prefix) :].strip(".").count(".") < depth

        prefixes = asked["prefixes"] or [""]
        names = [name for name in self.values if any(listed(name, one) for one in prefixes)]
        above = sorted({name.rpartition(".")[0] for name in names} - {""})
        return {"result": {"names": names, "prefixes": above}}

    def _outcome(self, parameters: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
        refused = self.set({one["name"]: decoded(one["value"]) for one in parameters})
        return {"successful": refused is None, "reason": refused or ""}

    def _publish_event(self, what: str, values: Mapping[str, Value]) -> None:
        event = {
            "stamp": stamp(time.time_ns()),
            "node": self._node.full_name,
            what: [{"name": name, "value": encoded(value)} for name, value in values.items()],
        }
        self._events.publish(self._event.encode(event))


def parameter_service(types: Types, word: str) -> ServiceType:
    """Return the type of the service `get_parameters`, or another one of a node's parameters."""
    name = "".join(part.capitalize() for part in word.split("_"))
    return types.service(f"rcl_interfaces/srv/{name}")
