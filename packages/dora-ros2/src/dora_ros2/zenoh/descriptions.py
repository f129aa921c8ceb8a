"""Type descriptions from and for other nodes: the service `get_type_description`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dora_ros2.connection import Node
from dora_ros2.definitions.description import TypeDescription
from dora_ros2.errors import DefinitionError, NoReply
from dora_ros2.types import Types
from dora_ros2.zenoh.endpoints import ServiceClient, answering
from dora_ros2.zenoh.tokens import EndpointToken

SERVICE = "get_type_description"
_TYPE = "type_description_interfaces/srv/GetTypeDescription"


def fetch_description(node: Node, target: str, name: str, type_hash: str) -> TypeDescription:
    """Request the description of a type from the node `target`, which uses it.

    Not from a callback. Raises NoReply; DefinitionError: the node refuses, or sends another type;
    InvalidName, SessionError.
    """
    client: ServiceClient = node.service_client(f"{target}/{SERVICE}", Types().service(_TYPE))
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


def find_description(node: Node, types: Types, endpoint: EndpointToken) -> TypeDescription:
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


def serve_descriptions(node: Node, describe: Callable[[str], TypeDescription]) -> None:
    """Answer requests for types of our node; `describe` may raise DefinitionError."""
    service = Types().service(_TYPE)
    answer = answering(partial(_answer, describe))
    node.service_server(f"~/{SERVICE}", service, answer)


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
