"""Recordings of the cluster for the page: list, start, stop, download."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from dora_cli.coordinator.errors import RequestFailed
from dora_cli.recordings.fleet import FleetRecording, collect
from dora_cli.recordings.starting import RecordSettings
from dora_cli.ui.connection import CoordinatorConnection, call
from dora_config.protocol.control import DataflowRef, Described, DescribeDataflow
from dora_config.protocol.recorders import RecordingLimits
from dora_config.protocol.recordings import (
    CallRecorders,
    ListRecordings,
    RecorderReplies,
    RecorderRequest,
    RecordPart,
    StopRecording,
)


class _Start(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    patterns: tuple[str, ...] = ()
    """Outputs by shell patterns; empty: all."""
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
        wanted = _Start.model_validate_json(await request.body() or b"{}")
        which = DataflowRef(uuid=request.path_params["dataflow"])
        found = await call(self._coordinator, DescribeDataflow(dataflow=which), Described)
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

    async def _call(
        self, request: RecorderRequest, machines: tuple[str, ...] = ()
    ) -> RecorderReplies:
        message = CallRecorders(daemons=machines, request=request)
        return await call(self._coordinator, message, RecorderReplies)


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
