"""Operations of the REST API that the page uses, answered through the backend."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dora_cli.ui.backend import Backend
from dora_cli.ui.responses import answering
from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.operations import OPERATIONS, Operation
from dora_config.protocol.rest.paths import JSON_TYPE

USED: Final = frozenset(
    {"startDataflowAgain", "stopDataflow", "restartDataflow", "stopNode", "restartNode"}
)


def operation_routes(backend: Backend) -> list[BaseRoute]:
    """Return a route for each operation; paths, bodies and answers are those of the REST API."""
    return [
        Route(one.path, answering(partial(_run, backend, one)), methods=[one.method])
        for one in OPERATIONS
        if one.name in USED
    ]


async def _run(backend: Backend, operation: Operation[Any, Any], request: Request) -> Response:
    """Raises what `Backend.ask` raises, OperationFailed and ValidationError."""
    try:
        given = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as problem:
        raise OperationFailed("invalid", f"the body is not valid JSON: {problem}") from problem
    if not isinstance(given, dict):
        raise OperationFailed("invalid", "the body must be a JSON object")
    steps = operation.run(operation.arguments.model_validate({**given, **request.path_params}))
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(await backend.ask(wanted))
    except StopIteration as end:
        return Response(end.value.model_dump_json(), operation.status, media_type=JSON_TYPE)
