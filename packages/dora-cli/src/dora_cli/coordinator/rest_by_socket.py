"""Operations of the REST API over the WebSocket, for coordinators of version 0.1.0."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from dora_cli.coordinator.client import Client
from dora_cli.coordinator.errors import RequestFailed
from dora_config.access import Endpoint
from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.operations import OPERATIONS, Operation


def run(endpoint: Endpoint, method: str, target: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what the REST API answers; raises as `RestClient.get`."""
    parts = urlsplit(target)
    operation, in_path = _find(method, parts.path)
    arguments = {**dict(parse_qsl(parts.query)), **body, **in_path}
    steps = operation.run(operation.arguments.model_validate(arguments))
    try:
        with Client(endpoint) as client:
            request = next(steps)
            while True:
                request = steps.send(client.ask(request))
    except StopIteration as end:
        result: dict[str, Any] = end.value.model_dump(mode="json")
        return result
    except OperationFailed as problem:
        raise RequestFailed(str(problem), problem.code) from problem


def _find(method: str, path: str) -> tuple[Operation[Any, Any], dict[str, str]]:
    """Return the operation of a path that this program has made, and the arguments in it."""
    for operation in OPERATIONS:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.path)
        found = re.fullmatch(pattern, path)
        if found is not None and operation.method == method:
            return operation, {key: unquote(value) for key, value in found.groupdict().items()}
    raise AssertionError(f"no operation {method} {path}")
