"""Errors of the REST API as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dora_config.protocol.rest import paths
from dora_config.protocol.rest.errors import STATUSES, OperationFailed
from dora_config.protocol.rest.models import ErrorBody


def json_error(
    status: int, code: str, sentence: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as JSON."""
    body = ErrorBody(error=sentence, code=code)
    return Response(body.model_dump_json(), status, headers, paths.JSON_TYPE)


def operation_error(problem: OperationFailed) -> Response:
    """Return the error of an operation as JSON."""
    body = ErrorBody(error=str(problem), code=problem.code, ended=problem.ended)
    return Response(body.model_dump_json(), STATUSES[problem.code], media_type=paths.JSON_TYPE)


async def http_error(request: Request, problem: Exception) -> Response:
    """Return an error of routing: a path or a method that does not exist."""
    assert isinstance(problem, HTTPException)
    if problem.status_code == 405:
        allowed = ", ".join(sorted((problem.headers or {}).get("Allow", "").split(", ")))
        sentence = f"{request.url.path} does not allow {request.method}, only {allowed}"
        return json_error(405, "method_not_allowed", sentence, headers={"Allow": allowed})
    if problem.status_code == 404:
        return json_error(
            404,
            "not_found",
            f"{request.url.path} does not exist; {paths.OPENAPI} lists the paths, and `/` in a "
            "name is written %2F",
        )
    return json_error(problem.status_code, "failed", problem.detail, headers=problem.headers)
