"""Inspector processes of this daemon, one for each `dora topic echo` or `hz`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from dora_config.protocol.topics import StreamTopics, TopicChunk
from dora_daemon.agent.records import PartRecord
from dora_daemon.inspection.process import SideProcess, chunks, inspector_process

MAX_INSPECTORS: Final = 16


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
        inspector = self._open[request.stream] = _Inspector()
        self._tasks.start_soon(self._run, inspector, record, request)

    def read_on(self, stream: int) -> None:
        inspector = self._open.get(stream)
        if inspector is not None and inspector.process is not None:
            inspector.process.request_chunk()

    def close(self, stream: int) -> None:
        if stream in self._open:
            self._open[stream].scope.cancel()

    def close_all(self) -> None:
        for inspector in self._open.values():
            inspector.scope.cancel()

    async def _run(self, inspector: _Inspector, record: PartRecord, request: StreamTopics) -> None:
        stream = request.stream
        done = False
        problem = "its inspector ended unexpectedly (exit status {}); see the daemon's log"
        try:
            with inspector.scope:
                async with inspector_process(Path(record.runtime_dir), request) as process:
                    inspector.process = process
                    async for chunk in chunks(process):
                        self._send(chunk)
                        done = chunk.done
                problem = problem.format(process.process.returncode)
        except OSError as error:
            problem = f"cannot start an inspector: {error}"
        finally:
            if self._open.get(stream) is inspector:  # the next coordinator numbers from 1 again
                del self._open[stream]
        if not done and not inspector.scope.cancel_called:
            self._send(TopicChunk(stream=stream, done=True, problem=problem))


@dataclass(slots=True, eq=False)
class _Inspector:
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    process: SideProcess | None = None
    """None before it is started."""
