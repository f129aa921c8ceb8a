"""Streams to the coordinator: log files, and outputs that an inspector process reads.

A stream has one unacknowledged chunk at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from dora_config.errors import os_error_text
from dora_config.ids import RUNNER_LOG, log_file_name
from dora_config.protocol.daemon import LogChunk, StreamLogs
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.agent.logs.files import NodeLogReader, PartLogReader
from dora_daemon.agent.records import PartRecord
from dora_daemon.inspection.process import chunks, inspector_process
from dora_daemon.out_dir import runner_log_file

POLL = 0.2
"""Seconds between reads of a followed file."""
MAX_INSPECTORS: Final = 16
"""Most streams of outputs at once; each has a process."""


@dataclass(slots=True, eq=False)
class _Stream:
    request: StreamLogs | StreamTopics
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    read_on: Callable[[], None] = lambda: None
    """Called when the last chunk was acknowledged."""


@dataclass(eq=False)
class Streams:
    """Open streams by number."""

    _tasks: TaskGroup
    _send: Callable[[LogChunk | TopicChunk], None]
    _is_live: Callable[[str], bool]
    """Returns whether a dataflow can still write lines."""
    _open: dict[int, _Stream] = field(default_factory=dict, init=False)

    def open(self, record: PartRecord, request: StreamLogs | StreamTopics) -> None:
        inspectors = [one for one in self._open.values() if isinstance(one.request, StreamTopics)]
        if isinstance(request, StreamTopics) and len(inspectors) >= MAX_INSPECTORS:
            problem = f"at most {MAX_INSPECTORS} `dora topic` streams per machine; end another one"
            self._send(TopicChunk(stream=request.stream, done=True, problem=problem))
            return
        stream = self._open[request.stream] = _Stream(request)
        self._tasks.start_soon(self._run, stream, record)

    def read_on(self, number: int) -> None:
        if number in self._open:
            self._open[number].read_on()

    def close(self, number: int) -> None:
        if number in self._open:
            self._open[number].scope.cancel()

    def close_all(self) -> None:
        for stream in self._open.values():
            stream.scope.cancel()

    async def _run(self, stream: _Stream, record: PartRecord) -> None:
        number = stream.request.stream
        try:
            with stream.scope:
                if isinstance(stream.request, StreamLogs):
                    await self._send_logs(stream, stream.request, record)
                else:
                    await self._send_topics(stream, stream.request, record)
        finally:
            if self._open.get(number) is stream:  # the next coordinator begins at 1 again
                del self._open[number]

    # -------------------------------------------------------------------------- log files

    async def _send_logs(self, stream: _Stream, request: StreamLogs, record: PartRecord) -> None:
        nodes = {
            node: NodeLogReader(file)
            for node in request.nodes
            if (file := _log_file(record, node)) is not None
        }
        with closing(PartLogReader(nodes, request.filter, request.after)) as log:
            problem = await self._send_lines(stream, request, log)
            missing = await anyio.to_thread.run_sync(_without_log, request, nodes)
        self._send(LogChunk(stream=request.stream, done=True, problem=problem, missing=missing))

    async def _send_lines(
        self, stream: _Stream, request: StreamLogs, log: PartLogReader
    ) -> str | None:
        """Send all lines, with ``follow`` until the dataflow has ended; return the problem."""
        acknowledged = anyio.Semaphore(0)
        stream.read_on = acknowledged.release
        while True:
            last_read = not request.follow or not self._is_live(request.dataflow_id)
            while True:
                try:
                    lines = await anyio.to_thread.run_sync(log.next_chunk)
                except OSError as error:
                    return os_error_text(error)
                if not lines:
                    break
                positions = dict(log.positions)
                chunk = LogChunk(stream=request.stream, lines=tuple(lines), positions=positions)
                self._send(chunk)
                await acknowledged.acquire()
            if last_read:
                return None
            await anyio.sleep(POLL)

    # ---------------------------------------------------------------------------- outputs

    async def _send_topics(
        self, stream: _Stream, request: StreamTopics, record: PartRecord
    ) -> None:
        try:
            async with inspector_process(Path(record.runtime_dir), request) as inspector:
                stream.read_on = inspector.request_chunk
                async for chunk in chunks(inspector):
                    self._send(chunk)
                    if chunk.done:
                        return
            code = inspector.process.returncode
            problem = f"its inspector ended unexpectedly (exit status {code}); see the daemon's log"
        except OSError as error:
            problem = f"cannot start an inspector: {error}"
        self._send(TopicChunk(stream=request.stream, done=True, problem=problem))


def _log_file(record: PartRecord, node: str) -> Path | None:
    if node.startswith(RUNNER_LOG):
        return runner_log_file(Path(record.history_file)) if record.history_file else None
    folder = record.log_dirs.get(node)
    return None if folder is None else Path(folder) / log_file_name(node)


def _without_log(request: StreamLogs, nodes: Mapping[str, NodeLogReader]) -> tuple[str, ...]:
    """Return the requested nodes without a log file."""
    return tuple(
        one
        for one in request.nodes
        # Not `Path.exists`, which raises if the folder cannot be read.
        if one not in nodes or not os.path.exists(nodes[one].path)  # noqa: PTH110
    )
