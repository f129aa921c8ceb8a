"""Runs of `dora run` on this computer as a backend: answers the requests of a coordinator."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from dora_cli._version import __version__
from dora_cli.coordinator.errors import RequestFailed
from dora_cli.ui.backend import Replies
from dora_cli.ui.local.runner_calls import (
    LocalRun,
    RunnerSilent,
    RunnerUnreachable,
    local_runs,
)
from dora_cli.ui.local.streams import LogReplies, OutputReplies
from dora_cli.why.local import choose_run, evidence
from dora_config import DoraError
from dora_config.access import Endpoint
from dora_config.errors import error_text
from dora_config.history.explain import explain
from dora_config.protocol.calls import PartReply, RunnerReplies
from dora_config.protocol.control import (
    CallRunner,
    ControlAnswer,
    ControlRequest,
    DataflowList,
    DataflowRef,
    DataflowStatus,
    DataflowSummary,
    Described,
    DescribeDataflow,
    Ended,
    EndedDataflow,
    Explain,
    Explained,
    FailureCode,
    GetSnapshot,
    ListDataflows,
    ReadLogs,
    RestartSummary,
    StopDataflow,
    WatchTopics,
)
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.runner import (
    GetStatistics,
    GetStatus,
    NodeStatus,
    RunnerReply,
    RunnerStatus,
    Statistics,
    StopAllNodes,
)
from dora_config.protocol.snapshot import (
    MachineSample,
    MachineSummary,
    NodeSummary,
    PartSample,
    Snapshot,
)
from dora_coordinator.queries.edge_rows import edge_rows
from dora_daemon.agent.sampler import machine_load

POLL = 0.1
STATE_SECONDS = 2.0
"""Time for a run to answer when the state of all runs is read."""
SILENT_PAUSE = 10.0
"""Seconds until a run that has not answered gets another request."""


class LocalRuns:
    """Implements `Backend`."""

    is_local = True
    problem: str | None = None

    def __init__(self, dataflow: str | None) -> None:
        """``dataflow``: only this run."""
        self._dataflow = dataflow
        self._machine = socket.gethostname()
        self._known: dict[str, LocalRun] = {}
        self._silent: dict[str, tuple[float, str]] = {}
        """When each silent run gets another request, and what to show until then."""

    @property
    def name(self) -> str:
        return f"{self._machine}, without a coordinator"

    def endpoint(self) -> Endpoint:
        raise _needs_coordinator()

    async def run(self) -> None:
        await anyio.sleep_forever()

    async def wait_connected(self) -> None:
        pass

    async def wait_changed(self) -> None:
        await anyio.sleep_forever()

    @asynccontextmanager
    async def open(self, request: ControlRequest) -> AsyncIterator[Replies]:
        match request:
            case ReadLogs(dataflow=which):
                replies = LogReplies(await self._find(which), request)
                try:
                    yield replies
                finally:
                    replies.close()
            case WatchTopics(dataflow=which):
                async with OutputReplies.opened(await self._find(which), request) as watched:
                    yield watched
            case _:
                raise _failed(f"a local run does not answer {request.kind!r}")

    async def request(self, request: ControlRequest) -> ControlAnswer:
        try:
            return await self._answer(request)
        except RunnerUnreachable as error:
            raise _failed(str(error), "not_found") from error
        except RequestFailed:
            raise
        except (DoraError, OSError) as error:
            raise _failed(error_text(error)) from error

    async def _answer(self, request: ControlRequest) -> ControlAnswer:
        match request:
            case ListDataflows():
                runs = await self._runs()
                found = await self._from_each(runs, GetStatus())
                rows = [
                    _dataflow(run, reply)
                    for run, reply in zip(runs, found, strict=True)
                    if isinstance(reply, RunnerStatus)
                ]
                silent = [run for run in runs if run.entry.dataflow_id in self._silent]
                return DataflowList(dataflows=(*rows, *map(_silent_dataflow, silent)))
            case GetSnapshot():
                return await self._snapshot()
            case DescribeDataflow(dataflow=which):
                return self._describe(await self._find(which))
            case Explain(dataflow=which):
                run = await self._find(which)
                return await anyio.to_thread.run_sync(_explanation, run)
            case CallRunner(dataflow=which, request=call):
                reply = await (await self._find(which)).call(call)
                return RunnerReplies(replies=(PartReply(daemon=self._machine, reply=reply),))
            case StopDataflow(dataflow=which, force=force):
                return await self._stop(await self._find(which), force=force)
            case _:
                raise _needs_coordinator()

    async def _runs(self) -> list[LocalRun]:
        found = await anyio.to_thread.run_sync(local_runs, self._dataflow)
        self._known = {
            run.entry.dataflow_id: self._known.get(run.entry.dataflow_id, run) for run in found
        }
        self._silent = {uuid: one for uuid, one in self._silent.items() if uuid in self._known}
        return list(self._known.values())

    async def _from_each(
        self, runs: list[LocalRun], request: GetStatus | GetStatistics
    ) -> list[RunnerReply | DoraError | None]:
        """Send a request to all runs; None: the run has ended, or was silent a moment ago."""
        found: list[RunnerReply | DoraError | None] = [None] * len(runs)

        async def call(index: int, run: LocalRun) -> None:
            uuid = run.entry.dataflow_id
            again, _ = self._silent.get(uuid, (0.0, ""))
            if anyio.current_time() < again:
                return
            try:
                found[index] = await run.call(request, STATE_SECONDS)
                self._silent.pop(uuid, None)
            except RunnerSilent as error:
                self._silent[uuid] = (anyio.current_time() + SILENT_PAUSE, str(error))
            except RunnerUnreachable:
                pass  # it has ended meanwhile
            except DoraError as error:
                self._silent.pop(uuid, None)
                found[index] = error

        async with anyio.create_task_group() as tasks:
            for index, run in enumerate(runs):
                tasks.start_soon(call, index, run)
        return found

    async def _find(self, which: DataflowRef) -> LocalRun:
        for run in await self._runs():
            if run.entry.dataflow_id == which.uuid:
                return run
        raise _failed("this run has ended", "not_found")

    async def _snapshot(self) -> Snapshot:
        nodes: list[NodeSummary] = []
        parts: list[PartSample] = []
        names: dict[str, str | None] = {}
        problems: list[str] = []
        runs = await self._runs()
        statuses = await self._from_each(runs, GetStatus())
        statistics = await self._from_each(runs, GetStatistics())
        for run, status, reply in zip(runs, statuses, statistics, strict=True):
            problems += [str(one) for one in (status, reply) if isinstance(one, DoraError)]
            if not isinstance(status, RunnerStatus):
                continue
            names[run.entry.dataflow_id] = run.name
            nodes += [self._node(run, node) for node in status.nodes]
            if isinstance(reply, Statistics):
                parts.append(
                    PartSample(dataflow_id=run.entry.dataflow_id, at=reply.at, edges=reply.edges)
                )
        problems += [problem for _, problem in self._silent.values()]
        load = await anyio.to_thread.run_sync(machine_load)
        sample = MachineSample(sample="", parts=tuple(parts), load=load)
        return Snapshot(
            time=time.time(),
            release=__version__,
            machines=(MachineSummary(daemon=self._machine, release=__version__, load=load),),
            nodes=tuple(nodes),
            edges=tuple(edge_rows({self._machine: sample}, names)),
            problems=tuple(problems),
        )

    def _node(self, run: LocalRun, node: NodeStatus) -> NodeSummary:
        return NodeSummary(
            **dict(node),
            dataflow=run.entry.dataflow_id,
            dataflow_name=run.name,
            daemon=self._machine,
        )

    def _describe(self, run: LocalRun) -> Described:
        plan = run.plan
        if plan is None:
            raise _failed("this run was started by another version of dora and has no graph")
        return Described(
            uuid=plan.dataflow_id,
            spec=DataflowSpec(resolved=plan.resolved, name=plan.name),
            daemons={node.id: self._machine for node in plan.resolved.nodes},
        )

    async def _stop(self, run: LocalRun, *, force: bool) -> Ended:
        await run.call(StopAllNodes(force=force, reason="stopped in the browser"))
        uuid, name = run.entry.dataflow_id, run.name
        while uuid in {one.entry.dataflow_id for one in await self._runs()}:  # noqa: ASYNC110
            await anyio.sleep(POLL)  # another process, without a connection
        return Ended(dataflows=(EndedDataflow(uuid=uuid, name=name, ok=True),))


def _explanation(run: LocalRun) -> Explained:
    """Explain a run from the files below its `out` folder."""
    if run.plan is None:
        raise _failed("this run was started by another version of dora")
    known = evidence(choose_run(Path(run.plan.working_dir), run.entry.dataflow_id))
    return Explained(explanation=explain(known))


_PHASES: dict[str, DataflowStatus] = {
    "starting": "Starting",
    "ready": "Starting",
    "running": "Running",
    "stopping": "Stopping",
    "finished": "Finished",
}


def _silent_dataflow(run: LocalRun) -> DataflowSummary:
    return DataflowSummary(
        uuid=run.entry.dataflow_id,
        name=run.name,
        status="Running",
        nodes=len(run.entry.nodes),
        daemons=(socket.gethostname(),),
    )


def _dataflow(run: LocalRun, status: RunnerStatus) -> DataflowSummary:
    restarted = [node for node in status.nodes if node.last_restart is not None]
    last = min(restarted, key=lambda node: node.last_restart_ago or 0.0, default=None)
    return DataflowSummary(
        uuid=run.entry.dataflow_id,
        name=run.name,
        status=_PHASES[status.phase],
        restarts=sum(node.restarts for node in status.nodes),
        last_restart=None
        if last is None
        else RestartSummary(
            cause=last.last_restart or "", ago=last.last_restart_ago or 0.0, node=last.node
        ),
        nodes=len(status.nodes),
        daemons=(socket.gethostname(),),
        cpu=sum(node.cpu_percent or 0.0 for node in status.nodes),
        memory=sum(node.memory_bytes or 0 for node in status.nodes),
    )


def _needs_coordinator() -> RequestFailed:
    return _failed(
        "this needs a coordinator: use `dora up`, and `dora start` in place of `dora run`"
    )


def _failed(message: str, code: FailureCode = "failed") -> RequestFailed:
    return RequestFailed(message, code)
