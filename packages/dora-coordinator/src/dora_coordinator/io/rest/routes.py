"""Routes of the operations in `dora_config.protocol.rest`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from dora_config.protocol.control import Failure
from dora_config.protocol.envelope import ProgramVersion, ProtocolVersion, version_problem
from dora_config.protocol.rest import openapi, paths
from dora_config.protocol.rest.errors import STATUSES, OperationFailed
from dora_config.protocol.rest.models import Arguments
from dora_config.protocol.rest.operations import OPERATIONS, Operation, Steps
from dora_coordinator.io.rest.errors import json_error
from dora_coordinator.io.service import Service

BODY_TIMEOUT: Final = 30.0
"""Seconds for the body of a request."""


AnyOperation = Operation[Any, Any]


class _EncodedRoute(Route):
    """A route whose parameters may contain slashes, percent-encoded as ``%2F``."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw = scope.get("raw_path")
        path = quote(scope["path"]) if raw is None else raw.decode("latin-1")
        return super().matches({**scope, "path": path})


class RestApi:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._by_path: dict[str, dict[str, AnyOperation]] = {}
        for operation in OPERATIONS:
            self._by_path.setdefault(operation.path, {})[operation.method] = operation

    def routes(self) -> list[Route]:
        return [
            *(
                _EncodedRoute(path, partial(self._handle, methods), methods=list(methods))
                for path, methods in self._by_path.items()
            ),
            Route(paths.OPENAPI, self._document, methods=["GET"]),
        ]

    async def _document(self, request: Request) -> Response:
        return JSONResponse(openapi.document())

    async def _handle(self, methods: Mapping[str, AnyOperation], request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        try:
            self._check_version(request.headers.get("User-Agent", ""))
            arguments = await _arguments(
                request, operation, self._service.settings.max_message_bytes
            )
        except OperationFailed as problem:
            return json_error(STATUSES[problem.code], problem.code, str(problem))
        response: Response | None = None
        async with anyio.create_task_group() as tasks:

            async def watch_client() -> None:
                while (await request.receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch_client)
            response = await self._run(operation, operation.run(arguments))
            tasks.cancel_scope.cancel()
        return response or Response(status_code=499)  # the client is gone

    async def _run(self, operation: AnyOperation, steps: Steps[BaseModel]) -> Response:
        try:
            # the first step may read files
            request = await anyio.to_thread.run_sync(next, steps)
            while True:
                answer = await self._service.ask(request)
                if answer is None:
                    return json_error(503, "unavailable", "the coordinator is ending or restarting")
                if isinstance(answer, Failure):
                    return json_error(
                        STATUSES[answer.code], answer.code, answer.message, ended=answer.ended
                    )
                request = steps.send(answer.answer)
        except StopIteration as end:
            body: BaseModel = end.value
            return Response(body.model_dump_json(), operation.status, media_type=paths.JSON_TYPE)
        except OperationFailed as problem:
            return json_error(STATUSES[problem.code], problem.code, str(problem))

    def _check_version(self, user_agent: str) -> None:
        """Refuse clients of dora with another version; raises OperationFailed."""
        found = paths.parse_user_agent(user_agent)
        if found is None:
            return
        program, release, major, minor = found
        protocol = ProtocolVersion(major=major, minor=minor)
        client = ProgramVersion(program=program, release=release, protocol=protocol)
        problem = version_problem(self._service.party, client)
        if problem is not None:
            raise OperationFailed("invalid", problem)


async def _arguments(request: Request, operation: AnyOperation, max_bytes: int) -> Arguments:
    """Return the arguments of a request; raises OperationFailed."""
    given: dict[str, object] = {}
    for key in request.query_params:
        values = request.query_params.getlist(key)
        given[key] = values[0] if len(values) == 1 else values
    if operation.method == "POST":
        if given:
            raise OperationFailed("invalid", f"{operation.path}: put arguments into a JSON body")
        given = await _body(request, max_bytes)
    in_path = {key: unquote(value) for key, value in request.path_params.items()}
    for key in in_path.keys() & given.keys():
        raise OperationFailed("invalid", f'"{key}" is in the path already')
    try:
        arguments: Arguments = operation.arguments.model_validate({**given, **in_path})
    except ValidationError as problems:
        raise OperationFailed("invalid", _sentence(problems, operation)) from problems
    return arguments


async def _body(request: Request, limit: int) -> dict[str, object]:
    content = bytearray()
    try:
        with anyio.fail_after(BODY_TIMEOUT):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit:
                    raise OperationFailed("invalid", f"the body has more than {limit} bytes")
    except TimeoutError as late:
        raise OperationFailed("invalid", f"no whole body within {BODY_TIMEOUT:g} s") from late
    except ClientDisconnect as gone:
        raise OperationFailed("invalid", "the body is not complete") from gone
    if not content:
        return {}
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != paths.JSON_TYPE:
        raise OperationFailed(
            "invalid", f"the body needs the header Content-Type: {paths.JSON_TYPE}"
        )
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise OperationFailed("invalid", f"the body is not valid JSON: {problem}") from problem
    if not isinstance(found, dict):
        raise OperationFailed("invalid", "the body must be a JSON object")
    return found


def _sentence(problems: ValidationError, operation: AnyOperation) -> str:
    first = problems.errors(include_url=False, include_input=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = ", ".join(operation.arguments.model_fields) or "none"
        return f'unknown argument "{name}"; arguments of {operation.path}: {known}'
    return f"{name}: {first['msg']}"
