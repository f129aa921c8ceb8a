"""Recordings of the cluster for the page: list, start, stop, download."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dora_cli.coordinator.errors import CoordinatorUnavailable, RequestFailed
from dora_cli.recordings.fleet import FleetRecording, collect
from dora_cli.recordings.starting import RecordSettings
from dora_cli.ui.backend import Backend, call
from dora_config.errors import first_error
from dora_config.protocol.control import DataflowRef, Described, DescribeDataflow
from dora_config.protocol.recordings import (
    CallRecorders,
    ListRecordings,
    ReadRecording,
    RecorderReplies,
    RecorderRequest,
    RecordingData,
    RecordingLimits,
    RecordPart,
    StopRecording,
)

MCAP: Final = "application/octet-stream"

logger = logging.getLogger("dora.ui")


class _Start(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[str, ...] = ()
    """Outputs by shell patterns; empty: all."""
    max_seconds: Annotated[float | None, Field(gt=0)] = None


class Recordings:
    """Requests about recordings; each raises what `Backend.request` raises."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def listed(self, _: Request) -> dict[str, Any]:
        """Return all recordings on the connected machines, the newest first."""
        replies = await self._call(ListRecordings())
        rows = [_row(one) for one in reversed(collect(replies))]
        return {"recordings": rows, "problems": sorted(replies.problems.values())}

    async def start(self, request: Request) -> dict[str, Any]:
        """Record a running dataflow on all its machines."""
        wanted = _Start.model_validate_json(await request.body() or b"{}")
        which = DataflowRef(uuid=request.path_params["dataflow"])
        found = await call(self._backend, DescribeDataflow(dataflow=which), Described)
        machines = tuple(sorted(set(found.daemons.values())))
        settings = RecordSettings(
            RecordingLimits(max_seconds=wanted.max_seconds), patterns=wanted.patterns
        )
        plan = settings.plan(found.spec, found.uuid, machines)
        replies = await self._call(RecordPart(plan=plan), machines)
        if not replies.replies and replies.problems:
            raise _failed("; ".join(replies.problems.values()))
        return {"recording": plan.recording, "warnings": sorted(replies.problems.values())}

    async def stop(self, request: Request) -> dict[str, Any]:
        replies = await self._call(StopRecording(recording=request.path_params["recording"]))
        return {"warnings": sorted(replies.problems.values())}

    async def download(self, request: Request) -> Response:
        """Return one file of one machine."""
        machine, file = request.path_params["machine"], request.path_params["file"]
        read = ReadRecording(recording=request.path_params["recording"], file=file, offset=0)
        first = await self._read(machine, read)
        name = f"{machine}_{file}".encode("ascii", "replace").decode().replace('"', "_")
        return Download(
            self._rest(machine, read, first),
            media_type=MCAP,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def _rest(self, machine: str, read: ReadRecording, data: bytes) -> AsyncIterator[bytes]:
        offset = 0
        while data:
            yield data
            offset += len(data)
            data = await self._read(machine, read.model_copy(update={"offset": offset}))

    async def _read(self, machine: str, request: ReadRecording) -> bytes:
        replies = await self._call(request, (machine,))
        for problem in replies.problems.values():
            raise _failed(problem)
        for one in replies.replies:
            if isinstance(one.reply, RecordingData):
                return one.reply.data
        raise _failed(
            f'machine "{machine}" has sent no data; fetch the recording with `dora record fetch`'
        )

    async def _call(
        self, request: RecorderRequest, machines: tuple[str, ...] = ()
    ) -> RecorderReplies:
        message = CallRecorders(daemons=machines, request=request)
        return await call(self._backend, message, RecorderReplies)


class Download(StreamingResponse):
    """A file whose transfer may fail: the browser then sees a connection that was cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except* (CoordinatorUnavailable, RequestFailed) as failed:
            logger.warning("a download of a recording has failed: %s", first_error(failed))


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


def _failed(message: str) -> RequestFailed:
    return RequestFailed(message, "failed")
