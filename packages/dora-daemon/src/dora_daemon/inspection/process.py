"""An inspector process, as the process that starts it sees it."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from pydantic import ValidationError

from dora_config.access import environ_without_token
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_config.spawn_argv import run_module
from dora_daemon.process_tree.runtime_dir import INSPECTION_SOCKET

MAX_LINE: Final = 16 * 1024 * 1024

logger = logging.getLogger("dora.daemon")


class InspectorProcess:
    """Sends a chunk after each request; created with :meth:`opened`."""

    def __init__(self, process: Process, requests: int) -> None:
        """``requests``: descriptor of the pipe to its standard input."""
        self._process = process
        self._requests = requests

    @classmethod
    @asynccontextmanager
    async def opened(cls, runner: Path, request: StreamTopics) -> AsyncIterator[InspectorProcess]:
        """Run an inspector for the block; ``runner``: the runner's directory. Raises OSError.

        It is killed after the block; the runner then removes the queues that it had opened.
        """
        socket = str(runner / INSPECTION_SOCKET)
        words = [*run_module("dora_daemon.inspection"), socket, request.model_dump_json()]
        theirs, requests = os.pipe()
        try:
            os.set_blocking(requests, False)
            try:
                process = await anyio.open_process(
                    words,
                    stdin=theirs,
                    stdout=subprocess.PIPE,
                    stderr=None,
                    env=environ_without_token(),
                    start_new_session=True,
                )
            finally:
                os.close(theirs)
            inspector = cls(process, requests)
            try:
                yield inspector
            finally:
                inspector._requests = -1
                await _end(process)
        finally:
            os.close(requests)

    async def chunks(self) -> AsyncIterator[TopicChunk]:
        """Yield its chunks, until the last one or until the process has ended."""
        assert self._process.stdout is not None
        lines = BufferedByteReceiveStream(self._process.stdout)
        done = False
        try:
            while not done:
                line = await lines.receive_until(b"\n", MAX_LINE)
                chunk = TopicChunk.model_validate_json(line)
                done = chunk.done
                yield chunk
        except (anyio.IncompleteRead, anyio.EndOfStream):
            pass  # the exit status is known after the block
        except (anyio.DelimiterNotFound, ValidationError) as error:
            logger.error("malformed message of an inspector: %s", error)

    def request_chunk(self) -> None:
        """Let the process send another chunk, unless it has ended."""
        if self._requests >= 0:
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(self._requests, b"+")

    @property
    def exit_status(self) -> int | None:
        """None: the process has not ended."""
        return self._process.returncode


async def _end(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        await process.aclose()
