"""Log lines and messages of a local run, as a coordinator would send them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from dora_cli.ui.local.runner_calls import LocalRun, local_runs
from dora_config.ids import log_file_name
from dora_config.protocol.control import (
    ControlAnswer,
    ControlProgress,
    LogLines,
    LogsEnd,
    ReadLogs,
    WatchTopics,
)
from dora_config.protocol.topics import StreamTopics, TopicsEnd, WatchedTopics
from dora_daemon.agent.logs.files import NodeLogReader, PartLogReader
from dora_daemon.agent.node_paths import log_dirs
from dora_daemon.inspection.process import SideProcess, chunks, inspector_process

POLL = 0.2
"""Seconds between reads of the log files."""
HERE = ""
"""Name of the only daemon."""


class LogReplies:
    """Lines of the log files, and those that follow until the run has ended."""

    def __init__(self, run: LocalRun, request: ReadLogs) -> None:
        self._run = run
        self._request = request
        directories = {} if run.plan is None else log_dirs(run.plan)
        self._log = PartLogReader(
            {
                node: NodeLogReader(Path(directories[node]) / log_file_name(node))
                for node in request.nodes or run.entry.nodes
                if node in directories
            },
            request.filter,
            request.after,
        )

    async def __aiter__(self) -> AsyncIterator[ControlProgress | ControlAnswer]:
        while True:
            last_read = not self._request.follow or not await anyio.to_thread.run_sync(
                local_runs, self._run.entry.dataflow_id
            )
            while lines := await anyio.to_thread.run_sync(self._log.next_chunk):
                positions = dict(self._log.positions)
                yield LogLines(daemon=HERE, stream=0, lines=tuple(lines), positions=positions)
            if last_read:
                yield LogsEnd()
                return
            await anyio.sleep(POLL)

    async def acknowledge(self, stream: int) -> None:
        pass

    def close(self) -> None:
        self._log.close()


class OutputReplies:
    """Messages of outputs, from an inspector process."""

    def __init__(self, process: SideProcess) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def opened(cls, run: LocalRun, request: WatchTopics) -> AsyncIterator[OutputReplies]:
        """Run an inspector for the block."""
        wanted = StreamTopics(
            stream=1,
            dataflow_id=run.entry.dataflow_id,
            topics=request.topics,
            sample_bytes=request.sample_bytes,
            max_rate=request.max_rate,
            picture_bytes=request.picture_bytes,
            whole_picture_bytes=request.whole_picture_bytes,
        )
        async with inspector_process(run.directory, wanted) as process:
            yield cls(process)

    async def __aiter__(self) -> AsyncIterator[ControlProgress | ControlAnswer]:
        async for chunk in chunks(self._process):
            if chunk.done:
                yield TopicsEnd(problems=() if chunk.problem is None else (chunk.problem,))
                return
            yield WatchedTopics(daemon=HERE, stream=1, news=chunk.news)
        yield TopicsEnd(problems=("the inspector process has ended unexpectedly",))

    async def acknowledge(self, stream: int) -> None:
        self._process.request_chunk()
