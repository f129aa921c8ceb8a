"""Requests of the page that are answered once: graph, parameters, and changes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dora_cli.coordinator.errors import RequestFailed
from dora_cli.ui import rows
from dora_cli.ui.connection import NEEDS_COORDINATOR, CoordinatorConnection, call
from dora_cli.ui.forwarding import forward
from dora_cli.ui.recordings import Recordings
from dora_config.errors import DoraError
from dora_config.protocol.calls import NodeRequest, RunnerReplies
from dora_config.protocol.control import (
    CallRunner,
    DataflowRef,
    Described,
    DescribeDataflow,
)
from dora_config.protocol.rest.errors import STATUSES, OperationFailed
from dora_config.protocol.rest.operations import OPERATIONS
from dora_config.protocol.runner import (
    DeleteParam,
    GetParams,
    GetRosGraph,
    Params,
    RosGraph,
    SetParam,
)

T = TypeVar("T", bound=BaseModel)

FORWARDED: Final = ("explainDataflow", "stopDataflow", "stopNode", "restartNode")
FORWARDED_OF_FLEETS: Final = (
    *("startDataflowAgain", "restartDataflow"),
    *("getFleet", "getFleetHistory", "rollBackFleet", "pauseFleet", "resumeFleet"),
)


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
        except DoraError as error:
            return failure(str(error), "unavailable")
        return found if isinstance(found, Response) else JSONResponse(found)

    return answer


def failure(message: str, code: str) -> Response:
    return JSONResponse({"error": message, "code": code}, STATUSES.get(code, 500))


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Nothing(_Body):
    pass


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
        ]
        table += [
            (
                one.method,
                one.path.replace("{node}", "{node:path}"),
                partial(self._forward, one.name),
            )
            for one in OPERATIONS
            if one.name in (*FORWARDED, *FORWARDED_OF_FLEETS)
        ]
        table.append(("GET", "/api/recordings/{recording}/{machine}/{file}", self._download))
        return [Route(path, answering(handle), methods=[method]) for method, path, handle in table]

    async def _download(self, request: Request) -> Response:
        return await forward(self._coordinator.endpoint(), request)

    async def _forward(self, operation: str, request: Request) -> Response:
        """Let the coordinator answer an operation of the REST API."""
        if self._coordinator.is_local and operation in FORWARDED_OF_FLEETS:
            raise RequestFailed(NEEDS_COORDINATOR, "failed")
        return await forward(self._coordinator.endpoint(), request)

    async def _graph(self, request: Request) -> dict[str, Any]:
        found = await call(self._coordinator, DescribeDataflow(dataflow=_which(request)), Described)
        return rows.graph(found)

    async def _params(self, request: Request) -> dict[str, Any]:
        replies = await self._call(request, GetParams(node=_node(request)))
        found = [one.reply for one in replies.replies if isinstance(one.reply, Params)]
        values = found[0].values if found else {}
        # JSON of browsers has no NaN and no infinity: they become texts
        return {"values": json.loads(json.dumps(values), parse_constant=str)}

    async def _ros_graph(self, request: Request) -> dict[str, Any]:
        replies = await self._call(request, GetRosGraph(node=_node(request)))
        found = [one.reply for one in replies.replies if isinstance(one.reply, RosGraph)]
        return {"graph": found[0].graph if found else None}

    async def _set_param(self, request: Request) -> dict[str, Any]:
        wanted = await _body(request, _Value)
        key = request.path_params["key"]
        await self._call(request, SetParam(node=_node(request), key=key, value=wanted.value))
        return {}

    async def _delete_param(self, request: Request) -> dict[str, Any]:
        await _body(request, _Nothing)
        await self._call(request, DeleteParam(node=_node(request), key=request.path_params["key"]))
        return {}

    async def _call(self, request: Request, to_node: NodeRequest) -> RunnerReplies:
        return await call(
            self._coordinator,
            CallRunner(dataflow=_which(request), node=_node(request), request=to_node),
            RunnerReplies,
        )


def _which(request: Request) -> DataflowRef:
    return DataflowRef(uuid=request.path_params["dataflow"])


def _node(request: Request) -> str:
    return str(request.path_params["node"])


async def _body(request: Request, kind: type[T]) -> T:
    return kind.model_validate_json(await request.body() or b"{}")
