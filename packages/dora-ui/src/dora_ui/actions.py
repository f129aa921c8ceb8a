"""Requests of the page with a single answer: graph, parameters, changes, recordings."""

from __future__ import annotations

import http.client
import json
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from dora_cli.coordinator.errors import RequestFailed, unreachable
from dora_cli.coordinator.recordings import FleetRecording, collect, new_plan
from dora_config.access import Endpoint
from dora_config.control_plane import CONNECT_TIMEOUT, ControlConnection
from dora_config.errors import DoraError, first_error
from dora_config.protocol.calls import NodeRequest, RunnerReplies
from dora_config.protocol.control import CallRunner, DescribeDataflow
from dora_config.protocol.recorders import RecordingLimits
from dora_config.protocol.recordings import (
    CallRecorders,
    ListRecordings,
    RecorderReplies,
    RecorderRequest,
    RecordPart,
    StopRecording,
)
from dora_config.protocol.rest.errors import STATUSES, OperationFailed
from dora_config.protocol.rest.operations import OPERATIONS
from dora_config.protocol.runner import (
    DeleteParam,
    GetDetails,
    GetParams,
    NodeDetails,
    Params,
    SetParam,
)
from dora_ui import rows
from dora_ui.connection import NEEDS_COORDINATOR, CoordinatorConnection

T = TypeVar("T", bound=BaseModel)

FORWARDED: Final = ("explainDataflow", "stopDataflow", "stopNode", "restartNode")
FORWARDED_OF_FLEETS: Final = (
    *("startDataflowAgain", "restartDataflow"),
    *("getFleet", "getFleetHistory", "rollBackFleet", "pauseFleet", "resumeFleet"),
)

Handler = Callable[[Request], Awaitable[dict[str, Any] | Response]]

PIECE: Final = 256 * 1024
"""Most bytes of a forwarded answer that are sent at once."""
_SENT: Final = ("content-type", "range")
_RETURNED: Final = ("content-type", "content-length", "content-range", "content-disposition")

logger = logging.getLogger("dora.ui")


class _Body(BaseModel):
    """Base of request bodies; used directly for a body without fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Start(_Body):
    patterns: tuple[str, ...] = ()
    """Shell patterns of outputs; empty: all outputs."""
    max_seconds: Annotated[float | None, Field(gt=0)] = None


class Recordings:
    """Requests about recordings; each raises what `CoordinatorConnection.request` raises."""

    def __init__(self, coordinator: CoordinatorConnection) -> None:
        self._coordinator = coordinator

    async def listed(self, _: Request) -> dict[str, Any]:
        """Return all recordings on the connected machines, the newest first."""
        replies = await self._call(ListRecordings())
        rows = [_row(one) for one in reversed(collect(replies))]
        return {"recordings": rows, "problems": sorted(replies.problems.values())}

    async def start(self, request: Request) -> dict[str, Any]:
        """Record a running dataflow on all its machines."""
        wanted = await _body(request, _Start)
        found = await self._coordinator.request(DescribeDataflow(dataflow=_which(request)))
        machines = tuple(sorted(set(found.daemons.values())))
        limits = RecordingLimits(max_seconds=wanted.max_seconds)
        plan = new_plan(
            found.spec, wanted.patterns, limits, dataflow_id=found.uuid, machines=machines
        )
        replies = await self._call(RecordPart(plan=plan), machines)
        if not replies.replies and replies.problems:
            raise RequestFailed("; ".join(replies.problems.values()), "failed")
        return {"recording": plan.recording, "warnings": sorted(replies.problems.values())}

    async def stop(self, request: Request) -> dict[str, Any]:
        replies = await self._call(StopRecording(recording=request.path_params["recording"]))
        return {"warnings": sorted(replies.problems.values())}

    async def _call(
        self, wanted: RecorderRequest, machines: tuple[str, ...] = ()
    ) -> RecorderReplies:
        return await self._coordinator.request(CallRecorders(daemons=machines, request=wanted))


def _row(one: FleetRecording) -> dict[str, Any]:
    return {
        "id": one.recording,
        "name": one.label,
        # Unix times by the clocks of the machines.
        "startedAt": {name: round(state.started, 1) for name, state in one.states.items()},
        "phase": one.phase,
        "bytes": one.nbytes,
        "messages": sum(one.recorded.values()),
        "lost": sum(one.lost.values()),
        "problems": one.problems,
        "machines": {
            name: [{"name": file.name, "bytes": file.size} for file in state.files]
            for name, state in sorted(one.states.items())
        },
        "missing": sorted(one.machines - one.states.keys()),
    }


class Forwarded(StreamingResponse):
    """Response that streams an answer; if it is incomplete, the browser's connection is closed."""

    def __init__(
        self, connection: ControlConnection, answer: http.client.HTTPResponse, path: str
    ) -> None:
        headers = {key: value for key in _RETURNED if (value := answer.headers.get(key))}
        super().__init__(self._pieces(), answer.status, headers)
        self._connection = connection
        self._answer = answer
        self._path = path

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await anyio.to_thread.run_sync(
            self._answer.read, PIECE, abandon_on_cancel=True
        ):
            yield piece
        if self._answer.length:
            raise ConnectionError(f"{self._answer.length} bytes are missing")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except* (OSError, http.client.HTTPException) as failed:
            logger.warning("%s has ended early: %s", self._path, first_error(failed))
        finally:
            _abort(self._connection)


async def forward(endpoint: Endpoint, request: Request) -> Forwarded:
    """Send a request to the same path of the coordinator. Raises CoordinatorUnreachable."""
    path = request.scope["raw_path"].decode("ascii").removeprefix(request.scope["root_path"])
    headers = {key: value for key in _SENT if (value := request.headers.get(key))}
    body = await request.body() or None
    connection = ControlConnection(endpoint, timeout=CONNECT_TIMEOUT)

    def answered() -> http.client.HTTPResponse:
        connection.connect()
        connection.sock.settimeout(None)  # a stop takes as long as its nodes need to end
        connection.request(request.method, path, body, {**endpoint.headers(), **headers})
        return connection.getresponse()

    try:
        answer = await anyio.to_thread.run_sync(answered, abandon_on_cancel=True)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise unreachable(endpoint, error) from error
    except BaseException:
        _abort(connection)
        raise
    return Forwarded(connection, answer, path)


def _abort(connection: ControlConnection) -> None:
    """Close a connection on which a thread may be waiting."""
    if connection.sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
    connection.close()


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
        except DoraError as error:
            return failure(str(error), "unavailable")
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


def failure(message: str, code: str) -> Response:
    return JSONResponse({"error": message, "code": code}, STATUSES.get(code, 500))


class _Value(_Body):
    value: Any = None


class Actions:
    """Routes below `/api`; a GET changes nothing."""

    def __init__(self, coordinator: CoordinatorConnection) -> None:
        self._coordinator = coordinator
        self._recordings = Recordings(coordinator)

    def routes(self) -> list[BaseRoute]:
        dataflow = "/api/dataflows/{dataflow}"
        node = dataflow + "/nodes/{node:path}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", f"{dataflow}/graph", self._graph),
            ("GET", f"{node}/params", self._params),
            ("GET", f"{node}/ros", self._ros_graph),
            ("POST", f"{node}/params/{{key:path}}/set", self._set_param),
            ("POST", f"{node}/params/{{key:path}}/delete", self._delete_param),
            ("GET", "/api/recordings", self._recordings.listed),
            ("POST", f"{dataflow}/record", self._recordings.start),
            ("POST", "/api/recordings/{recording}/stop", self._recordings.stop),
            (
                "GET",
                "/api/recordings/{recording}/{machine}/{file}",
                self._forward_file,
            ),
        ]
        for one in OPERATIONS:
            if one.name in (*FORWARDED, *FORWARDED_OF_FLEETS):
                path = one.path.replace("{node}", "{node:path}")
                table.append((one.method, path, partial(self._forward, one.name)))
        return [Route(path, answering(handle), methods=[method]) for method, path, handle in table]

    async def _forward_file(self, request: Request) -> Response:
        return await forward(self._coordinator.endpoint(), request)

    async def _forward(self, operation: str, request: Request) -> Response:
        """Forward an operation of the REST API to the coordinator."""
        if self._coordinator.is_local and operation in FORWARDED_OF_FLEETS:
            raise RequestFailed(NEEDS_COORDINATOR, "failed")
        return await forward(self._coordinator.endpoint(), request)

    async def _graph(self, request: Request) -> dict[str, Any]:
        found = await self._coordinator.request(DescribeDataflow(dataflow=_which(request)))
        return rows.graph(found)

    async def _params(self, request: Request) -> dict[str, Any]:
        replies = await self._call(request, GetParams(node=_node(request)))
        found = [one.reply for one in replies.replies if isinstance(one.reply, Params)]
        values = found[0].values if found else {}
        # Browsers do not parse NaN and infinity in JSON: they become texts.
        return {"values": json.loads(json.dumps(values), parse_constant=str)}

    async def _ros_graph(self, request: Request) -> dict[str, Any]:
        replies = await self._call(request, GetDetails(node=_node(request)))
        found = [one.reply for one in replies.replies if isinstance(one.reply, NodeDetails)]
        return {"graph": found[0].details if found else None}

    async def _set_param(self, request: Request) -> dict[str, Any]:
        wanted = await _body(request, _Value)
        key = request.path_params["key"]
        await self._call(request, SetParam(node=_node(request), key=key, value=wanted.value))
        return {}

    async def _delete_param(self, request: Request) -> dict[str, Any]:
        await _body(request, _Body)
        await self._call(request, DeleteParam(node=_node(request), key=request.path_params["key"]))
        return {}

    async def _call(self, request: Request, to_node: NodeRequest) -> RunnerReplies:
        return await self._coordinator.request(
            CallRunner(dataflow=_which(request), node=_node(request), request=to_node)
        )


def _which(request: Request) -> str:
    return str(request.path_params["dataflow"])


def _node(request: Request) -> str:
    return str(request.path_params["node"])


async def _body(request: Request, kind: type[T]) -> T:
    return kind.model_validate_json(await request.body() or b"{}")
