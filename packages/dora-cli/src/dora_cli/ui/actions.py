"""Requests of the page that are answered once: graph, parameters, and changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dora_cli.coordinator.errors import CoordinatorLost, CoordinatorUnreachable, RequestFailed
from dora_cli.ui import rows
from dora_cli.ui.backend import Backend
from dora_config.protocol.calls import NodeRequest, RunnerReplies
from dora_config.protocol.control import (
    CallRunner,
    DataflowRef,
    Described,
    DescribeDataflow,
    Ended,
    Explain,
    Explained,
    RestartDataflow,
    Restarted,
    StartDataflow,
    Started,
    StopDataflow,
)
from dora_config.protocol.runner import (
    DeleteParam,
    GetParams,
    Params,
    RestartNode,
    SetParam,
    StopNode,
)

STATUS = {"not_found": 404, "conflict": 409, "ambiguous": 409, "nothing_runs": 404}

T = TypeVar("T", bound=BaseModel)

Handler = Callable[[Request], Awaitable[dict[str, Any]]]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Stop(_Body):
    force: bool = False


class _Nothing(_Body):
    pass


class _Value(_Body):
    value: Any = None


class Actions:
    """Routes below `/api`; a GET changes nothing."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[BaseRoute]:
        dataflow = "/api/dataflows/{dataflow}"
        node = dataflow + "/nodes/{node:path}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", f"{dataflow}/graph", self._graph),
            ("GET", f"{dataflow}/why", self._why),
            ("POST", f"{dataflow}/start", self._start),
            ("POST", f"{dataflow}/stop", self._stop),
            ("POST", f"{dataflow}/restart", self._restart),
            ("GET", f"{node}/params", self._params),
            ("POST", f"{node}/params/{{key}}/set", self._set_param),
            ("POST", f"{node}/params/{{key}}/delete", self._delete_param),
            ("POST", f"{node}/stop", self._stop_node),
            ("POST", f"{node}/restart", self._restart_node),
        ]
        return [
            Route(path, _answering(handler), methods=[method]) for method, path, handler in table
        ]

    async def _graph(self, request: Request) -> dict[str, Any]:
        found = await self._backend.request(DescribeDataflow(dataflow=_which(request)), Described)
        return rows.graph(found)

    async def _why(self, request: Request) -> dict[str, Any]:
        found = await self._backend.request(Explain(dataflow=_which(request)), Explained)
        return found.explanation.model_dump(mode="json", exclude_none=True)

    async def _start(self, request: Request) -> dict[str, Any]:
        await _body(request, _Nothing)
        found = await self._backend.request(DescribeDataflow(dataflow=_which(request)), Described)
        started = await self._backend.request(StartDataflow(spec=found.spec), Started)
        return {"uuid": started.uuid, "warnings": started.warnings}

    async def _stop(self, request: Request) -> dict[str, Any]:
        wanted = await _body(request, _Stop)
        await self._backend.request(
            StopDataflow(dataflow=_which(request), force=wanted.force), Ended
        )
        return {}

    async def _restart(self, request: Request) -> dict[str, Any]:
        await _body(request, _Nothing)
        answer = await self._backend.request(RestartDataflow(dataflow=_which(request)), Restarted)
        return {"uuid": answer.new, "warnings": answer.warnings}

    async def _params(self, request: Request) -> dict[str, Any]:
        replies = await self._call(request, GetParams(node=_node(request)))
        found = [one.reply for one in replies.replies if isinstance(one.reply, Params)]
        return {"values": found[0].values if found else {}}

    async def _set_param(self, request: Request) -> dict[str, Any]:
        wanted = await _body(request, _Value)
        key = request.path_params["key"]
        await self._call(request, SetParam(node=_node(request), key=key, value=wanted.value))
        return {}

    async def _delete_param(self, request: Request) -> dict[str, Any]:
        await _body(request, _Nothing)
        await self._call(request, DeleteParam(node=_node(request), key=request.path_params["key"]))
        return {}

    async def _stop_node(self, request: Request) -> dict[str, Any]:
        await _body(request, _Nothing)
        await self._call(request, StopNode(node=_node(request)))
        return {}

    async def _restart_node(self, request: Request) -> dict[str, Any]:
        await _body(request, _Nothing)
        await self._call(request, RestartNode(node=_node(request)))
        return {}

    async def _call(self, request: Request, call: NodeRequest) -> RunnerReplies:
        return await self._backend.request(
            CallRunner(dataflow=_which(request), node=_node(request), request=call), RunnerReplies
        )


def _which(request: Request) -> DataflowRef:
    return DataflowRef(uuid=request.path_params["dataflow"])


def _node(request: Request) -> str:
    return str(request.path_params["node"])


async def _body(request: Request, kind: type[T]) -> T:
    return kind.model_validate_json(await request.body() or b"{}")


def _answering(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)
        except RequestFailed as error:
            return JSONResponse({"error": str(error)}, STATUS.get(error.code, 502))
        except (CoordinatorLost, CoordinatorUnreachable) as error:
            return JSONResponse({"error": str(error)}, 503)

    return answer
