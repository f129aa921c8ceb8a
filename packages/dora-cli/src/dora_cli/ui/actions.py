"""Requests of the page that are answered once: graph, parameters, and changes."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from dora_cli.ui import rows
from dora_cli.ui.backend import Backend, call
from dora_cli.ui.operations import operation_routes
from dora_cli.ui.recordings import Recordings
from dora_cli.ui.responses import Handler, answering
from dora_config.protocol.calls import NodeRequest, RunnerReplies
from dora_config.protocol.control import (
    CallRunner,
    DataflowRef,
    Described,
    DescribeDataflow,
    Explain,
    Explained,
)
from dora_config.protocol.runner import (
    DeleteParam,
    GetParams,
    Params,
    SetParam,
)

T = TypeVar("T", bound=BaseModel)


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Nothing(_Body):
    pass


class _Value(_Body):
    value: Any = None


class Actions:
    """Routes below `/api`; a GET changes nothing."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._recordings = Recordings(backend)

    def routes(self) -> list[BaseRoute]:
        dataflow = "/api/dataflows/{dataflow}"
        node = dataflow + "/nodes/{node:path}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", f"{dataflow}/graph", self._graph),
            ("GET", f"{dataflow}/why", self._why),
            ("GET", f"{node}/params", self._params),
            ("POST", f"{node}/params/{{key:path}}/set", self._set_param),
            ("POST", f"{node}/params/{{key:path}}/delete", self._delete_param),
            ("GET", "/api/recordings", self._recordings.listed),
            ("POST", f"{dataflow}/record", self._recordings.start),
            ("POST", "/api/recordings/{recording}/stop", self._recordings.stop),
        ]
        download = "/api/recordings/{recording}/{machine}/{file}"
        return [
            *(Route(path, answering(handler), methods=[method]) for method, path, handler in table),
            Route(download, answering(self._recordings.download), methods=["GET"]),
            *operation_routes(self._backend),
        ]

    async def _graph(self, request: Request) -> dict[str, Any]:
        found = await call(self._backend, DescribeDataflow(dataflow=_which(request)), Described)
        return rows.graph(found)

    async def _why(self, request: Request) -> dict[str, Any]:
        found = await call(self._backend, Explain(dataflow=_which(request)), Explained)
        return found.explanation.model_dump(mode="json", exclude_none=True)

    async def _params(self, request: Request) -> dict[str, Any]:
        replies = await self._call(request, GetParams(node=_node(request)))
        found = [one.reply for one in replies.replies if isinstance(one.reply, Params)]
        values = found[0].values if found else {}
        # JSON of browsers has no NaN and no infinity: they become texts
        return {"values": json.loads(json.dumps(values), parse_constant=str)}

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
            self._backend,
            CallRunner(dataflow=_which(request), node=_node(request), request=to_node),
            RunnerReplies,
        )


def _which(request: Request) -> DataflowRef:
    return DataflowRef(uuid=request.path_params["dataflow"])


def _node(request: Request) -> str:
    return str(request.path_params["node"])


async def _body(request: Request, kind: type[T]) -> T:
    return kind.model_validate_json(await request.body() or b"{}")
