"""Inspector processes of this daemon, one for each `dora topic echo` or `hz`.

The process is killed when its stream ends; the runner then removes the queues it had opened.
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

MAX_INSPECTORS: Final = 16
MAX_LINE: Final = 16 * 1024 * 1024


class Inspectors:
    """Inspector processes by the number of their stream."""

    def __init__(self, tasks: TaskGroup, send: Callable[[TopicChunk], None]) -> None:
        self._tasks = tasks
        self._send = send
        self._open: dict[int, _Inspector] = {}

    def open(self, record: PartRecord, request: StreamTopics) -> None:
        if len(self._open) >= MAX_INSPECTORS:
            problem = f"at most {MAX_INSPECTORS} `dora topic` streams per machine; end another one"
            self._send(TopicChunk(stream=request.stream, done=True, problem=problem))
            return
        inspector = self._open[request.stream] = _Inspector(record, request)
        self._tasks.start_soon(self._run, request.stream, inspector)

    def read_on(self, stream: int) -> None:
        if stream in self._open:
            self._open[stream].request_chunk()

    def close(self, stream: int) -> None:
        if stream in self._open:
            self._open[stream].scope.cancel()

    def close_all(self) -> None:
        for inspector in self._open.values():
            inspector.scope.cancel()

    async def _run(self, stream: int, inspector: _Inspector) -> None:
        problem: str | None = None
        try:
            with inspector.scope:
                problem = await inspector.run(self._send)
        except OSError as error:
            problem = f"cannot start an inspector: {error}"
        finally:
            if self._open.get(stream) is inspector:  # the next coordinator numbers from 1 again
                del self._open[stream]
        if not inspector.scope.cancel_called and not inspector.done:
            self._send(TopicChunk(stream=stream, done=True, problem=problem))


class _Inspector:
    def __init__(self, record: PartRecord, request: StreamTopics) -> None:
        self.scope = anyio.CancelScope()
        self.done = False
        self._socket = Path(record.runtime_dir) / INSPECTION_SOCKET
        self._request = request
        self._input = -1

    async def run(self, send: Callable[[TopicChunk], None]) -> str | None:
        """Forward chunks until the process has ended; return the reason for an early end."""
        theirs, self._input = os.pipe()
        try:
            os.set_blocking(self._input, False)
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
                await self._forward(process, send)
            finally:
                status = await _end(process)
        finally:
            os.close(self._input)
            self._input = -1
        return f"its inspector ended unexpectedly (exit status {status}); see the daemon's log"

    async def _forward(self, process: Process, send: Callable[[TopicChunk], None]) -> None:
        assert process.stdout is not None
        lines = BufferedByteReceiveStream(process.stdout)
        try:
            while not self.done:
                line = await lines.receive_until(b"\n", MAX_LINE)
                chunk = TopicChunk.model_validate_json(line)
                self.done = chunk.done
                send(chunk)
        except (anyio.IncompleteRead, anyio.EndOfStream):
            pass  # `run` reports the exit status
        except (anyio.DelimiterNotFound, ValidationError) as error:
            logger.error("malformed message of an inspector: %s", error)

    def request_chunk(self) -> None:
        """Let the process send another chunk, unless it has ended."""
        if self._input >= 0:
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(self._input, b"+")


async def _end(process: Process) -> int:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        status = await process.wait()
        await process.aclose()
    return status
