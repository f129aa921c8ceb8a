"""Answers to requests of the page, and errors as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dora_cli.coordinator.errors import CoordinatorUnavailable, RequestFailed
from dora_config.protocol.rest.errors import STATUSES, OperationFailed

Handler = Callable[[Request], Awaitable[dict[str, Any] | Response]]


def answering(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that answers errors of ``handler`` as the REST API does."""

    async def answer(request: Request) -> Response:
        try:
            found = await handler(request)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            return failure(f"{where}: {first['msg']}", "invalid")
        except (OperationFailed, RequestFailed) as error:
            return failure(str(error), error.code)
        except CoordinatorUnavailable as error:
            return failure(str(error), "unavailable")
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


def failure(message: str, code: str) -> Response:
    return JSONResponse({"error": message, "code": code}, STATUSES.get(code, 500))
