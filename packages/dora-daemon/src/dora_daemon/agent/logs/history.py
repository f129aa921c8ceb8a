"""Sends the events of a part: from its runner, or from its file if the runner does not answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from dora_config.disk_space import free_space
from dora_config.history.entries import split_dropped
from dora_config.history.file import read_history
from dora_config.protocol.daemon import PartHistory, ReadHistory
from dora_config.protocol.runner import GetHistory, RunnerHistory
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.registry import NotAnswered, RunnerRegistry

RUNNER_SECONDS = 2.0
"""Seconds for a runner to answer; less than the coordinator waits for this machine."""


@dataclass(frozen=True, slots=True)
class HistoryReader:
    """Answers `ReadHistory`."""

    _runners: RunnerRegistry
    _send: Callable[[PartHistory], None]

    async def answer(self, record: PartRecord, request: ReadHistory, live: bool) -> None:
        """Send the answer as soon as it is known; ``live``: the part has a runner."""
        path = Path(record.history_file) if record.history_file else None
        reply, problem = await self._ask_runner(record.dataflow_id) if live else (None, None)
        if reply is None:
            reply = RunnerHistory()
            if path is not None:
                try:
                    saved = await anyio.to_thread.run_sync(read_history, path)
                    entries, dropped = split_dropped(saved)
                    reply = RunnerHistory(entries=entries, dropped=dropped)
                except OSError as error:
                    text = f"cannot read {path}: {error.strerror}"
                    problem = text if problem is None else f"{problem}; {text}"
        folder, free = "", None
        if path is not None:
            with suppress(OSError):
                free = await anyio.to_thread.run_sync(free_space, path.parent)
                folder = str(path.parent)
        answer = PartHistory(
            read=request.read,
            entries=reply.entries,
            dropped=reply.dropped,
            nodes=reply.nodes,
            edges=reply.edges,
            folder=folder,
            free_bytes=free,
            problem=problem,
        )
        self._send(answer)

    async def _ask_runner(self, dataflow_id: str) -> tuple[RunnerHistory | None, str | None]:
        """Return the runner's history, or why it sent none."""
        try:
            with anyio.fail_after(RUNNER_SECONDS):
                reply = await self._runners.ask(dataflow_id, GetHistory())
        except TimeoutError:
            return None, f"the runner has not answered for {RUNNER_SECONDS:g} s"
        except NotAnswered as error:
            return None, str(error)
        if not isinstance(reply, RunnerHistory):
            return None, "the runner sent another reply"
        return reply, None
