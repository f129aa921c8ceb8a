"""Log lines and messages of a local run, as a coordinator would send them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import ValidationError

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
from dora_config.protocol.topics import StreamTopics, TopicChunk, TopicsEnd, WatchedTopics
from dora_config.spawn_argv import run_module
from dora_daemon.agent.logs.files import NodeLogReader, PartLogReader
from dora_daemon.agent.node_paths import log_dirs
from dora_daemon.process_tree.runtime_dir import INSPECTION_SOCKET

POLL = 0.2
"""Seconds between reads of the log files."""
MAX_LINE = 16 * 1024 * 1024
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

    def __init__(self, process: Process, requests: int) -> None:
        self._process = process
        self._requests = requests

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
        theirs, requests = os.pipe()
        try:
            os.set_blocking(requests, False)
            socket = run.directory / INSPECTION_SOCKET
            words = [*run_module("dora_daemon.inspection"), str(socket), wanted.model_dump_json()]
            try:
                process = await anyio.open_process(
                    words, stdin=theirs, stdout=subprocess.PIPE, stderr=None, start_new_session=True
                )
            finally:
                os.close(theirs)
            try:
                yield cls(process, requests)
            finally:
                with anyio.CancelScope(shield=True):
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
                    await process.aclose()
        finally:
            os.close(requests)

    async def __aiter__(self) -> AsyncIterator[ControlProgress | ControlAnswer]:
        assert self._process.stdout is not None
        lines = BufferedByteReceiveStream(self._process.stdout)
        try:
            while True:
                chunk = TopicChunk.model_validate_json(await lines.receive_until(b"\n", MAX_LINE))
                if chunk.done:
                    yield TopicsEnd(problems=() if chunk.problem is None else (chunk.problem,))
                    return
                yield WatchedTopics(daemon=HERE, stream=1, news=chunk.news)
        except (anyio.IncompleteRead, anyio.EndOfStream, ValidationError):
            yield TopicsEnd(problems=("the inspector process has ended unexpectedly",))

    async def acknowledge(self, stream: int) -> None:
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self._requests, b"+")
