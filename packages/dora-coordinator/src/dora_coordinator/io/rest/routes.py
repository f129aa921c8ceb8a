"""Routes of the operations in `dora_config.protocol.rest`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote, unquote

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from dora_config.errors import RemoteProtocolError
from dora_config.protocol import control, envelope
from dora_config.protocol.envelope import ProgramVersion, ProtocolVersion, version_problem
from dora_config.protocol.rest import openapi, paths
from dora_config.protocol.rest.errors import OperationFailed
from dora_config.protocol.rest.models import Arguments
from dora_config.protocol.rest.operations import OPERATIONS, Operation, body_arguments
from dora_config.protocol.snapshot import Snapshot
from dora_coordinator.io.rest.errors import operation_error
from dora_coordinator.io.service import Service

BODY_TIMEOUT: Final = 30.0
"""Seconds for the body of a request."""


AnyOperation = Operation[Any, Any]
A = TypeVar("A", bound=envelope.Message)


class EncodedRoute(Route):
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
                EncodedRoute(path, partial(self._handle, methods), methods=list(methods))
                for path, methods in self._by_path.items()
            ),
            Route(paths.REQUEST, self._control, methods=["POST"]),
            Route(paths.OPENAPI, self._document, methods=["GET"]),
        ]

    async def _document(self, request: Request) -> Response:
        return JSONResponse(openapi.document())

    async def _handle(self, methods: Mapping[str, AnyOperation], request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        try:
            self._check_version(request.headers.get("User-Agent", ""))
            others = await _arguments(request, operation, self._service.settings.max_message_bytes)
            in_path = {key: unquote(value) for key, value in request.path_params.items()}
            arguments = operation.parse(in_path, others)
        except OperationFailed as problem:
            return operation_error(problem)
        return await while_connected(request, partial(self._run, operation, arguments))

    async def _control(self, request: Request) -> Response:
        """Answer one message of our own programs."""
        try:
            self._check_version(request.headers.get("User-Agent", ""))
            content = await _body(request, self._service.settings.max_message_bytes)
            message = control.REQUEST_CODEC.decode(content)
        except OperationFailed as problem:
            return operation_error(problem)
        except RemoteProtocolError as problem:
            return operation_error(OperationFailed("invalid", str(problem)))

        async def answer() -> Response:
            try:
                found = await self._answer(message)
            except OperationFailed as problem:
                return operation_error(problem)
            # a snapshot that several clients get is encoded once
            text = found.text if isinstance(found, Snapshot) else control.ANSWER_CODEC.encode(found)
            return Response(text, headers=self._headers(), media_type=paths.JSON_TYPE)

        return await while_connected(request, answer)

    async def _run(self, operation: AnyOperation, arguments: Arguments) -> Response:
        try:
            text = await operation.result_json(arguments, self._request)
        except OperationFailed as problem:
            return operation_error(problem)
        return Response(text, operation.status, self._headers(), paths.JSON_TYPE)

    def _headers(self) -> dict[str, str]:
        successor = self._service.succession.record.successor
        return {} if successor is None else {paths.SUCCESSOR: successor.address}

    async def _request(self, request: envelope.Request[A]) -> A:
        """Return the answer to a request of an operation; raises OperationFailed."""
        answer = await self._answer(cast(control.ControlRequest, request))
        assert isinstance(answer, request.answer_type())
        return answer

    async def _answer(self, request: control.ControlRequest) -> control.ControlAnswer:
        answer = await self._service.request(request)
        if answer is None:
            raise OperationFailed("unavailable", "the coordinator is ending or restarting")
        if isinstance(answer, control.Failure):
            raise OperationFailed(answer.code, answer.message, answer.ended)
        return answer.answer

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
            raise OperationFailed("version", problem)


async def while_connected(request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """Return the answer; cancel it when the client closes its connection."""
    response: Response | None = None
    async with anyio.create_task_group() as tasks:

        async def watch_client() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch_client)
        response = await answer()
        tasks.cancel_scope.cancel()
    return response or Response(status_code=499)  # the client is gone


async def _arguments(
    request: Request, operation: AnyOperation, max_bytes: int
) -> Mapping[str, object]:
    """Return the arguments in the query or in the body; raises OperationFailed."""
    given: dict[str, object] = {}
    for key in request.query_params:
        values = request.query_params.getlist(key)
        given[key] = values[0] if len(values) == 1 else values
    if operation.method == "GET":
        return given
    if given:
        raise OperationFailed("invalid", f"{operation.path}: put arguments into a JSON body")
    content = await _body(request, max_bytes)
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content and kind != paths.JSON_TYPE:
        raise OperationFailed(
            "invalid", f"the body needs the header Content-Type: {paths.JSON_TYPE}"
        )
    return body_arguments(content)


async def _body(request: Request, limit: int) -> bytes:
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
    return bytes(content)
