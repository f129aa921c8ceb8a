"""Services that every node of ROS has: of its parameters, and of the types that it uses.

Encodes values of parameters, serves parameters, and requests and serves type descriptions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

from dora_ros2.connection import RosNode
from dora_ros2.definitions.description import TypeDescription
from dora_ros2.errors import DefinitionError, NoReply, Ros2Error
from dora_ros2.types import ServiceType, Types
from dora_ros2.zenoh.endpoints import ServiceClient, answering
from dora_ros2.zenoh.tokens import EndpointToken, Qos, stamp

DESCRIBE = "get_type_description"
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
        node: RosNode,
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


def fetch_description(node: RosNode, target: str, name: str, type_hash: str) -> TypeDescription:
    """Request the description of a type from the node `target`, which uses it.

    Not from a callback. Raises NoReply; DefinitionError: the node refuses, or sends another type;
    InvalidName, SessionError.
    """
    client: ServiceClient = node.service_client(f"{target}/{DESCRIBE}", _describe_type())
    asked = {"type_name": name, "type_hash": type_hash, "include_type_sources": True}
    try:
        answer = client.ask(asked).result()[0].as_py()
    finally:
        client.close()
    if not answer["successful"]:
        raise DefinitionError(
            f'{target} does not describe the type "{name}": {answer["failure_reason"]}'
        )
    sources = {
        source["type_name"]: source["raw_file_contents"]
        for source in answer["type_sources"]
        if source["encoding"] == "msg"
    }
    described = TypeDescription.from_message(answer["type_description"], sources)
    if described.name != name or described.hash != type_hash:
        raise DefinitionError(
            f'{target} described {described.name} {described.hash} instead of "{name}" {type_hash}'
        )
    return described


def find_description(node: RosNode, types: Types, endpoint: EndpointToken) -> TypeDescription:
    """Return the description of an endpoint's type: one that is installed, or that of its node.

    Not from a callback. Raises DefinitionError: none has the endpoint's hash.
    """
    problem = ""
    try:
        described = types.description(endpoint.type)
        if endpoint.humble or described.hash == endpoint.hash:
            return described
        problem = f"the definition of {endpoint.type} here has the hash {described.hash}"
    except DefinitionError as error:
        if endpoint.humble:
            raise
        problem = str(error)
    name = endpoint.node.full_name
    if not node.has_services:
        raise DefinitionError(
            f"{problem}, and {name} uses {endpoint.hash}",
            remedy="over DDS a node cannot describe its types: put its definition into a folder"
            f" {endpoint.type.split('/')[1]} beside the dataflow",
        )
    try:
        return fetch_description(node, name, endpoint.type, endpoint.hash)
    except (NoReply, DefinitionError) as error:
        raise DefinitionError(
            f"{problem}, and {name}, which uses {endpoint.hash}, does not describe it: {error}"
        ) from None


def serve_descriptions(node: RosNode, describe: Callable[[str], TypeDescription]) -> None:
    """Answer requests for types of our node; `describe` may raise DefinitionError."""
    answer = answering(partial(_answer, describe))
    node.service_server(f"~/{DESCRIBE}", _describe_type(), answer)


@cache
def _describe_type() -> ServiceType:
    return Types().service("type_description_interfaces/srv/GetTypeDescription")


def _answer(describe: Callable[[str], TypeDescription], asked: dict[str, Any]) -> dict[str, Any]:
    try:
        described = describe(asked["type_name"])
    except DefinitionError as error:
        return {"successful": False, "failure_reason": str(error)}
    if asked["type_hash"] not in ("", described.hash):
        return {"successful": False, "failure_reason": f"the hash here is {described.hash}"}
    sources = [
        {"type_name": one.name, "encoding": "msg", "raw_file_contents": one.source}
        for one in described.structures.values()
        if one.source and asked["include_type_sources"]
    ]
    return {
        "successful": True,
        "type_description": described.as_message(),
        "type_sources": sources,
    }
