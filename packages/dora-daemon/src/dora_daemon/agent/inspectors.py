"""Inspectors of this daemon: one process for each watch, from the first word to the last.

The process is killed when the watch ends, however that happens; with its connection the runner
takes back all that was done for it.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import Process, TaskGroup
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import ValidationError

from dora_config.access import TOKEN_VARIABLE
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_config.spawn_argv import run_module
from dora_daemon.agent.records import PartRecord
from dora_daemon.process_tree.runtime_dir import INSPECTION_SOCKET

logger = logging.getLogger("dora.daemon")

MOST_WATCHES: Final = 16
LONGEST_LINE: Final = 16 * 1024 * 1024


class Watches:
    """``tell`` sends a chunk."""

    def __init__(self, tasks: TaskGroup, tell: Callable[[TopicChunk], None]) -> None:
        self._tasks = tasks
        self._tell = tell
        self._open: dict[int, _Watch] = {}

    def open(self, record: PartRecord, request: StreamTopics) -> None:
        if len(self._open) >= MOST_WATCHES:
            problem = f"{MOST_WATCHES} watches at once are the most on a machine; end another"
            self._tell(TopicChunk(stream=request.stream, done=True, problem=problem))
            return
        watch = self._open[request.stream] = _Watch(record, request)
        self._tasks.start_soon(self._run, request.stream, watch)

    def read_on(self, stream: int) -> None:
        if stream in self._open:
            self._open[stream].ask()

    def close(self, stream: int) -> None:
        if stream in self._open:
            self._open[stream].scope.cancel()

    def close_all(self) -> None:
        """The coordinator is gone, and whoever watched through it."""
        for watch in self._open.values():
            watch.scope.cancel()

    async def _run(self, stream: int, watch: _Watch) -> None:
        problem: str | None = None
        try:
            with watch.scope:
                problem = await watch.run(self._tell)
        except OSError as error:
            problem = f"cannot start an inspector: {error}"
        finally:
            if self._open.get(stream) is watch:  # another coordinator counts from 1 again
                del self._open[stream]
        if not watch.scope.cancel_called and not watch.said_last:
            self._tell(TopicChunk(stream=stream, done=True, problem=problem))


class _Watch:
    def __init__(self, record: PartRecord, request: StreamTopics) -> None:
        self.scope = anyio.CancelScope()
        self.said_last = False
        self._socket = Path(record.runtime_dir) / INSPECTION_SOCKET
        self._request = request
        self._words = -1

    async def run(self, tell: Callable[[TopicChunk], None]) -> str | None:
        """Pass on what the inspector says; why it ended before its last word."""
        theirs, self._words = os.pipe()
        try:
            os.set_blocking(self._words, False)
            try:
                process = await anyio.open_process(
                    [
                        *run_module("dora_daemon.inspection"),
                        str(self._socket),
                        self._request.model_dump_json(),
                    ],
                    stdin=theirs,
                    stdout=subprocess.PIPE,
                    stderr=None,
                    env={n: v for n, v in os.environ.items() if n != TOKEN_VARIABLE},
                    start_new_session=True,
                )
            finally:
                os.close(theirs)
            try:
                await self._pass_on(process, tell)
            finally:
                status = await _end(process)
        finally:
            os.close(self._words)
            self._words = -1
        return f"its inspector ended unexpectedly (exit status {status}); see the daemon's log"

    async def _pass_on(self, process: Process, tell: Callable[[TopicChunk], None]) -> None:
        assert process.stdout is not None
        lines = BufferedByteReceiveStream(process.stdout)
        try:
            while not self.said_last:
                line = await lines.receive_until(b"\n", LONGEST_LINE)
                chunk = TopicChunk.model_validate_json(line)
                self.said_last = chunk.done
                tell(chunk)
        except (anyio.IncompleteRead, anyio.EndOfStream):
            pass  # it has ended
        except (anyio.DelimiterNotFound, ValidationError) as error:
            logger.error("the inspector said what is no message: %s", error)

    def ask(self) -> None:
        """Another chunk is wanted; one that has ended needs not be told."""
        if self._words >= 0:
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(self._words, b"+")


async def _end(process: Process) -> int:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        status = await process.wait()
        await process.aclose()
    return status
