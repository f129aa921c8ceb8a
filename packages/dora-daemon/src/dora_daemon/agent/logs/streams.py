"""Log streams to the coordinator, one unacknowledged chunk at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from dora_config.errors import os_error_text
from dora_config.ids import log_file_name
from dora_config.protocol.daemon import LogChunk, StreamLogs
from dora_daemon.agent.logs.files import NodeLogReader, PartLogReader
from dora_daemon.agent.records import PartRecord

POLL = 0.2
"""Seconds between reads of a followed file."""


@dataclass(slots=True, eq=False)
class _Stream:
    log: PartLogReader
    request: StreamLogs
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    acknowledged: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(0))

    def nodes_without_log(self) -> tuple[str, ...]:
        nodes = self.log.nodes
        return tuple(
            one
            for one in self.request.nodes
            # Not `Path.exists`, which raises if the folder cannot be read.
            if one not in nodes or not os.path.exists(nodes[one].path)  # noqa: PTH110
        )


class LogStreams:
    """Open streams by number; ``is_live`` returns whether a dataflow can still write lines."""

    def __init__(
        self, tasks: TaskGroup, send: Callable[[LogChunk], None], is_live: Callable[[str], bool]
    ) -> None:
        self._tasks = tasks
        self._send = send
        self._is_live = is_live
        self._open: dict[int, _Stream] = {}

    def open(self, record: PartRecord, request: StreamLogs) -> None:
        nodes = {
            node: NodeLogReader(Path(record.log_dirs[node]) / log_file_name(node))
            for node in request.nodes
            if node in record.log_dirs
        }
        stream = _Stream(PartLogReader(nodes, request.filter, request.after), request)
        self._open[request.stream] = stream
        self._tasks.start_soon(self._run, stream)

    def read_on(self, number: int) -> None:
        if number in self._open:
            self._open[number].acknowledged.release()

    def close(self, number: int) -> None:
        if number in self._open:
            self._open[number].scope.cancel()

    def close_all(self) -> None:
        for stream in self._open.values():
            stream.scope.cancel()

    async def _run(self, stream: _Stream) -> None:
        number = stream.request.stream
        try:
            with stream.scope:
                problem = await self._send_log(stream)
                missing = await anyio.to_thread.run_sync(stream.nodes_without_log)
                done = LogChunk(stream=number, done=True, problem=problem, missing=missing)
                self._send(done)
        finally:
            stream.log.close()
            if self._open.get(number) is stream:  # the next coordinator numbers from 1 again
                del self._open[number]

    async def _send_log(self, stream: _Stream) -> str | None:
        """Send all lines, with ``follow`` until the dataflow has ended; return the problem."""
        request = stream.request
        while True:
            last_read = not request.follow or not self._is_live(request.dataflow_id)
            while True:
                try:
                    lines = await anyio.to_thread.run_sync(stream.log.next_chunk)
                except OSError as error:
                    return os_error_text(error)
                if not lines:
                    break
                positions = dict(stream.log.positions)
                chunk = LogChunk(stream=request.stream, lines=tuple(lines), positions=positions)
                self._send(chunk)
                await stream.acknowledged.acquire()
            if last_read:
                return None
            await anyio.sleep(POLL)
