"""Log streams to the coordinator: one piece at a time, the next one when it was taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from dora_config.ids import log_file_name
from dora_config.protocol.daemon import LogChunk, StreamLogs
from dora_daemon.agent.logs.files import NodeLog, PartLog
from dora_daemon.agent.records import PartRecord

POLL = 0.2
"""Seconds between looks at a followed file."""


class LogStreams:
    """``tell`` sends a chunk; ``is_live`` says whether more can come of a dataflow."""

    def __init__(
        self, tasks: TaskGroup, tell: Callable[[LogChunk], None], is_live: Callable[[str], bool]
    ) -> None:
        self._tasks = tasks
        self._tell = tell
        self._is_live = is_live
        self._open: dict[int, tuple[anyio.CancelScope, anyio.Semaphore]] = {}

    def open(self, record: PartRecord, request: StreamLogs) -> None:
        self._tasks.start_soon(self._run, record, request)

    def read_on(self, stream: int) -> None:
        if stream in self._open:
            self._open[stream][1].release()

    def close(self, stream: int) -> None:
        if stream in self._open:
            self._open[stream][0].cancel()

    def close_all(self) -> None:
        """The coordinator is gone, and its streams with it."""
        for scope, _ in self._open.values():
            scope.cancel()

    async def _run(self, record: PartRecord, request: StreamLogs) -> None:
        taken = anyio.Semaphore(0)
        log = PartLog(
            [
                NodeLog(Path(record.log_dirs[node]) / log_file_name(node))
                for node in request.nodes
                if node in record.log_dirs
            ],
            request.filter,
        )
        with anyio.CancelScope() as scope:
            self._open[request.stream] = (scope, taken)
            try:
                problem = await self._send(log, request, taken)
                self._tell(LogChunk(stream=request.stream, done=True, problem=problem))
            finally:
                log.close()
                del self._open[request.stream]

    async def _send(self, log: PartLog, request: StreamLogs, taken: anyio.Semaphore) -> str | None:
        """Everything up to now, and with ``follow`` until no more can come."""
        while True:
            last_look = not request.follow or not self._is_live(request.dataflow_id)
            while True:
                try:
                    lines = await anyio.to_thread.run_sync(log.next_piece)
                except OSError as error:
                    return f"{error.filename}: {error.strerror}"
                if not lines:
                    break
                self._tell(LogChunk(stream=request.stream, lines=tuple(lines)))
                await taken.acquire()
            if last_look:
                return None
            await anyio.sleep(POLL)
