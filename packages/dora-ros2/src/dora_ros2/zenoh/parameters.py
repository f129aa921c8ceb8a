"""Parameters of ROS nodes: all six services of a node of ours, and a client for other nodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

from dora_ros2.errors import Ros2Error
from dora_ros2.types import ServiceType, Types
from dora_ros2.zenoh.node import Node, Request, ServiceClient, then
from dora_ros2.zenoh.tokens import Qos

Value: TypeAlias = bool | int | float | str | bytes | Sequence[bool | int | float | str] | None
"""Value of a parameter; None: not set."""
_T = TypeVar("_T")
OnSet = Callable[[Mapping[str, Value]], str | None]
_FIELDS = (
    "",
    "bool_value",
    "integer_value",
    "double_value",
    "string_value",
    "byte_array_value",
    "bool_array_value",
    "integer_array_value",
    "double_array_value",
    "string_array_value",
)
"""Fields of `rcl_interfaces/msg/ParameterValue` by type."""
_SCALARS: Mapping[type, int] = {bool: 1, int: 2, float: 3, str: 4, bytes: 5}
_EVENTS_QOS = Qos(depth=1000)


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


def _encoded(value: Value) -> dict[str, Any]:
    kind = parameter_type(value)
    return {"type": kind, _FIELDS[kind]: value} if kind else {"type": 0}


def _decoded(message: Mapping[str, Any]) -> Value:
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
        self._events = node.publisher("/parameter_events", self._event, _EVENTS_QOS)
        self._servers = [
            node.service_server(f"~/{word}", _service(types, word), _answering(answer))
            for word, answer in (
                ("describe_parameters", self._describe),
                ("get_parameter_types", self._types),
                ("get_parameters", self._get),
                ("list_parameters", self._list),
                ("set_parameters", self._set),
                ("set_parameters_atomically", self._set_atomically),
            )
            if node.has_services
        ]
        self._publish_event(new=list(values))

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
            self._publish_event(changed=list(values))
        return refused

    def close(self) -> None:
        """Withdraw the services."""
        for endpoint in (*self._servers, self._events):
            endpoint.close()

    def _get(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"values": [_encoded(self.values.get(name)) for name in asked["names"]]}

    def _types(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"types": [parameter_type(self.values.get(name)) for name in asked["names"]]}

    def _describe(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "descriptors": [
                {"name": name, "type": parameter_type(self.values.get(name))}
                for name in asked["names"]
            ]
        }

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

    def _set(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"results": [self._outcome([one]) for one in asked["parameters"]]}

    def _set_atomically(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"result": self._outcome(asked["parameters"])}

    def _outcome(self, parameters: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
        refused = self.set({one["name"]: _decoded(one["value"]) for one in parameters})
        return {"successful": refused is None, "reason": refused or ""}

    def _publish_event(self, *, new: Sequence[str] = (), changed: Sequence[str] = ()) -> None:
        now = time.time_ns()
        event = {
            "stamp": {"sec": now // 1_000_000_000, "nanosec": now % 1_000_000_000},
            "node": self._node.full_name,
            "new_parameters": [self._parameter(name) for name in new],
            "changed_parameters": [self._parameter(name) for name in changed],
        }
        self._events.publish(self._event.encode(event))

    def _parameter(self, name: str) -> dict[str, Any]:
        return {"name": name, "value": _encoded(self.values[name])}


class ParameterClient:
    """Reads and changes the parameters of another node. Its futures fail with NoReply."""

    def __init__(self, node: Node, target: str, types: Types) -> None:
        """`target`: full name of the other node. Raises InvalidName, SessionError."""
        self.target = target
        self._node = node
        self._types = types
        self._clients: dict[str, ServiceClient] = {}

    def wait_for_server(self, seconds: float) -> bool:
        """Wait until the node serves its parameters; return whether it does."""
        clients = [self._client(word) for word in ("list_parameters", "set_parameters")]
        return all(client.wait_for_server(seconds) for client in clients)

    def get(self, names: Sequence[str]) -> Future[dict[str, Value]]:
        """Return a future of the values by name; None for a parameter that does not exist."""
        return self._call(
            "get_parameters",
            {"names": names},
            lambda answer: dict(zip(names, map(_decoded, answer["values"]), strict=False)),
        )

    def set(self, values: Mapping[str, Value]) -> Future[dict[str, str | None]]:
        """Return a future of why each value was refused, or None, by name."""
        parameters = [{"name": name, "value": _encoded(value)} for name, value in values.items()]
        return self._call(
            "set_parameters",
            {"parameters": parameters},
            lambda answer: {
                name: None if result["successful"] else result["reason"] or "refused"
                for name, result in zip(values, answer["results"], strict=False)
            },
        )

    def list(self, prefixes: Sequence[str] = (), *, depth: int = 0) -> Future[list[str]]:
        """Return a future of the names; `depth` 0: at any depth."""
        asked = {"prefixes": prefixes, "depth": depth}
        return self._call("list_parameters", asked, lambda answer: answer["result"]["names"])

    def describe(self, names: Sequence[str]) -> Future[Sequence[dict[str, Any]]]:
        """Return a future of the `rcl_interfaces/msg/ParameterDescriptor` of each name."""
        asked = {"names": names}
        return self._call("describe_parameters", asked, lambda answer: answer["descriptors"])

    def close(self) -> None:
        """Withdraw the clients."""
        for client in self._clients.values():
            client.close()

    def _client(self, word: str) -> ServiceClient:
        if word not in self._clients:
            service = _service(self._types, word)
            self._clients[word] = self._node.service_client(f"{self.target}/{word}", service)
        return self._clients[word]

    def _call(
        self, word: str, request: Mapping[str, Any], convert: Callable[[dict[str, Any]], _T]
    ) -> Future[_T]:
        return then(self._client(word).ask(request), lambda value: convert(value[0].as_py()))


def _service(types: Types, word: str) -> ServiceType:
    name = "".join(part.capitalize() for part in word.split("_"))
    return types.service(f"rcl_interfaces/srv/{name}")


def _answering(
    answer: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> Callable[[Request], None]:
    return lambda request: request.answer(answer(request.value[0].as_py()))
