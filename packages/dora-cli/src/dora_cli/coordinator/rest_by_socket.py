"""Operations of the REST API over the WebSocket, for coordinators of version 0.1.0."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
from pydantic import BaseModel

from dora_cli.coordinator.async_client import connected
from dora_cli.coordinator.errors import RequestFailed
from dora_config.access import Endpoint
from dora_config.errors import DoraError
from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.operations import OPERATIONS, Operation


def run(endpoint: Endpoint, method: str, target: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the REST API answers; raises as `RestClient.get`."""
    parts = urlsplit(target)
    operation, in_path = _find(method, parts.path)
    others = {**dict(parse_qsl(parts.query)), **body}

    async def answer() -> BaseModel | DoraError:
        async with connected(endpoint) as client:
            try:
                arguments = operation.parse(in_path, others)
                result: BaseModel = await operation.run(arguments, client.request)
            except DoraError as problem:
                return problem  # a task group would raise it in an ExceptionGroup
            return result

    found = anyio.run(answer)
    if isinstance(found, OperationFailed):
        raise RequestFailed(str(found), found.code) from found
    if isinstance(found, DoraError):
        raise found
    return found.model_dump(mode="json")


def _find(method: str, path: str) -> tuple[Operation[Any, Any], dict[str, str]]:
    """Return the operation of a path that this program has made, and the arguments in it."""
    for operation in OPERATIONS:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.path)
        found = re.fullmatch(pattern, path)
        if found is not None and operation.method == method:
            return operation, {key: unquote(value) for key, value in found.groupdict().items()}
    raise AssertionError(f"no operation {method} {path}")
