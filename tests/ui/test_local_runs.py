"""Runs of `dora run`, adopted by the coordinator and the agent of a page; without a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from signal import SIGKILL

import anyio
import pytest
from support.dora import RunningDora, running_dora
from support.runner.found_runners import list_runners
from support.waiting import PATIENCE
from support.workspace import Workspace

from dora_cli.coordinator.errors import RequestFailed
from dora_config.access import config_dir
from dora_config.protocol.control import (
    CallRunner,
    DataflowSummary,
    DescribeDataflow,
    ListDataflows,
    LogLines,
    LogsEnd,
    ReadLogs,
    StopDataflow,
)
from dora_config.protocol.recordings import CallRecorders, ListRecordings
from dora_config.protocol.runner import GetParams, Params, RestartNode, SetParam
from dora_daemon.process_tree.runtime_dir import runtime_root
from dora_ui.connection import LocalRuns

pytestmark = pytest.mark.integration

TALKER = """
    from dora import Node

    for event in Node():
        if event["type"] == "INPUT":
            print("said", flush=True)
"""
FLOW = {
    "nodes": [{"id": "talker", "path": "talker.py", "inputs": {"tick": "dora/timer/millis/50"}}],
}


@asynccontextmanager
async def adopting(dataflow: str | None = None) -> AsyncIterator[LocalRuns]:
    backend = LocalRuns(dataflow)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(backend.run)
            yield backend
            tasks.cancel_scope.cancel()


async def listed(
    backend: LocalRuns, condition: Callable[[DataflowSummary], object]
) -> DataflowSummary:
    """Return the row that meets a condition, once there is one."""
    while True:
        rows = (await backend.request(ListDataflows())).dataflows
        for row in rows:
            if condition(row):
                return row
        await anyio.sleep(0.05)


def test_a_run_is_shown_changed_and_stopped(workspace: Workspace) -> None:
    workspace.node("talker", TALKER)

    async def watch() -> None:
        async with adopting() as backend:
            row = await listed(backend, lambda row: row.status == "Running")
            assert (row.name, row.nodes) == (workspace.path.name, 1)
            ref = row.uuid
            described = await backend.request(DescribeDataflow(dataflow=ref))
            assert [node.id for node in described.spec.resolved.nodes] == ["talker"]
            await restart_and_set(backend, ref)
            with pytest.raises(RequestFailed, match="needs a coordinator"):
                await backend.request(CallRecorders(request=ListRecordings()))
            await backend.request(StopDataflow(dataflow=ref))
            await listed(backend, lambda row: row.status == "Finished")

    with running_dora("run", workspace.dataflow(FLOW), cwd=workspace.path) as run:
        anyio.run(watch)
        run.wait().succeeded()


async def restart_and_set(backend: LocalRuns, ref: str) -> None:
    await backend.request(
        CallRunner(dataflow=ref, node="talker", request=RestartNode(node="talker"))
    )
    await listed(backend, lambda row: row.restarts == 1 and row.status == "Running")
    change = SetParam(node="talker", key="gain", value=3)
    await backend.request(CallRunner(dataflow=ref, node="talker", request=change))
    read = CallRunner(dataflow=ref, node="talker", request=GetParams(node="talker"))
    (found,) = (await backend.request(read)).replies
    assert isinstance(found.reply, Params)
    assert found.reply.values == {"gain": 3}


def test_a_run_outlives_the_page_and_is_not_started_again(workspace: Workspace) -> None:
    workspace.node("talker", TALKER)

    async def look(condition: str) -> str:
        async with adopting() as backend:
            return (await listed(backend, lambda row: row.status == condition)).uuid

    async def kill(run: RunningDora) -> None:
        async with adopting() as backend:
            ref = (await listed(backend, lambda row: True)).uuid
            await listed(backend, lambda row: row.status == "Running")
            run.send_signal(SIGKILL)
            ended = await listed(backend, lambda row: row.status == "Failed")
            assert "ended unexpectedly" in (ended.reason or "")
            async with backend.open(ReadLogs(dataflow=ref)) as replies:
                read = [one async for one in replies]
            assert isinstance(read[-1], LogsEnd)
            lines = [line for one in read if isinstance(one, LogLines) for line in one.lines]
            assert any("said" in line for line in lines)

    with running_dora("run", workspace.dataflow(FLOW), cwd=workspace.path) as run:
        assert anyio.run(look, "Running") == anyio.run(look, "Running")
        assert run.process.poll() is None
        anyio.run(kill, run)
    assert list_runners(runtime_root()) == []
    assert not config_dir().exists()  # no token of the coordinator
