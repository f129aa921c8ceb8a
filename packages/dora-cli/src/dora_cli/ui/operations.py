"""Operations of the REST API that the page uses, answered through the backend."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from dora_cli.ui.backend import Backend
from dora_cli.ui.responses import answering
from dora_config.protocol.rest.operations import OPERATIONS, Operation, body_arguments
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
    """Raises what `Backend.request` raises, and OperationFailed."""
    others = body_arguments(await request.body())
    arguments = operation.parse(request.path_params, others)
    text = await operation.result_json(arguments, backend.request)
    return Response(text, operation.status, media_type=JSON_TYPE)
