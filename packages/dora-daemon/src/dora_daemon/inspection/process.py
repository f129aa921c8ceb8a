"""Starts inspectors, recorders and builds, and exchanges messages with them."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Final

import anyio
from pydantic import ValidationError

from dora_config.access import environ_without_token
from dora_config.protocol.envelope import Message
from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_config.spawn_argv import run_module
from dora_daemon.daemon_threads import run_in_daemon_thread
from dora_node_api.protocol.runner_index import NODE_SOCKET

INSPECTOR_MODULE: Final = "dora_daemon.inspection.inspector"
BUILD_MODULE: Final = "dora_daemon.build"
MAX_LINE: Final = 16 * 1024 * 1024
"""Most bytes of a message."""
READ_SIZE: Final = 65536
"""Bytes that are read at once."""

logger = logging.getLogger("dora.daemon")


class SideProcess:
    """A process with the arguments and streams that ``side_process`` describes."""

    def __init__(
        self,
        module: str,
        request: Message,
        runner: Path | None = None,
        *,
        errors: IO[bytes] | None = None,
    ) -> None:
        """``runner``: directory of the runner whose outputs it reads. Raises OSError."""
        file = os.memfd_create("request")
        try:
            with open(file, "wb", closefd=False) as contents:
                contents.write(request.model_dump_json().encode())
                contents.seek(0)
            self.process = subprocess.Popen(
                [*run_module(module), *([str(runner / NODE_SOCKET)] if runner else []), str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environ_without_token(),
                start_new_session=True,
                pass_fds=(file,),
            )
        finally:
            os.close(file)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout
        os.set_blocking(self._input.fileno(), False)

    def next_line(self) -> bytes | None:
        """Return the next message as JSON, None at the end; blocks."""
        line = self._output.readline(MAX_LINE)
        return line if line.endswith(b"\n") else None

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield the lines of a build, which may be very many, without a thread for each."""
        begun = b""
        while True:
            await anyio.wait_readable(self._output)
            data = os.read(self._output.fileno(), READ_SIZE)
            if not data:
                return
            *lines, begun = (begun + data).split(b"\n")
            for line in lines:
                yield line

    def request_chunk(self) -> None:
        """Request another chunk from an inspector, unless it has ended."""
        if not self._input.closed:
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(self._input.fileno(), b"+")

    def finish(self) -> None:
        """End an inspector, cancel a build; a recorder with a status file continues."""
        self._input.close()

    def release(self) -> None:
        """Close both pipes."""
        self._input.close()
        self._output.close()

    def wait(self) -> int:
        """Return the exit status, negative for a signal; blocks."""
        self.release()
        return self.process.wait()


@asynccontextmanager
async def inspector_process(runner: Path, request: StreamTopics) -> AsyncIterator[SideProcess]:
    """Run an inspector for the block. Raises OSError.

    It is killed after the block; the runner then removes the queues that it had opened.
    """
    started = SideProcess(INSPECTOR_MODULE, request, runner)
    try:
        yield started
    finally:
        started.process.kill()
        started.finish()
        with anyio.CancelScope(shield=True):
            await run_in_daemon_thread(started.wait)


async def chunks(inspector: SideProcess) -> AsyncIterator[TopicChunk]:
    """Yield its chunks, until the last one or until the process has ended."""
    while line := await run_in_daemon_thread(inspector.next_line):
        try:
            chunk = TopicChunk.model_validate_json(line)
        except ValidationError as error:
            logger.error("malformed message of an inspector: %s", error)
            return
        yield chunk
        if chunk.done:
            return
