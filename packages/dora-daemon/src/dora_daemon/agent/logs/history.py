"""Reads the events of a part: from its runner, or from its file if the runner does not answer."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from dora_config.disk_space import free_space
from dora_config.history.entries import split_dropped
from dora_config.history.file import read_history
from dora_config.protocol.daemon import PartHistory
from dora_config.protocol.runner import GetHistory, RunnerHistory
from dora_daemon.agent.records import PartRecord
from dora_daemon.agent.runners.registry import NotAnswered, RunnerRegistry

RUNNER_SECONDS = 2.0
"""Seconds for a runner to answer; less than the coordinator waits for this machine."""


async def read_part_history(
    runners: RunnerRegistry, record: PartRecord, *, live: bool
) -> PartHistory:
    """Return the events of a part; ``live``: it has a runner."""
    path = Path(record.history_file) if record.history_file else None
    reply, problem = await _ask_runner(runners, record.dataflow_id) if live else (None, None)
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
    return PartHistory(history=reply, folder=folder, free_bytes=free, problem=problem)


async def _ask_runner(
    runners: RunnerRegistry, dataflow_id: str
) -> tuple[RunnerHistory | None, str | None]:
    """Return the runner's history, or why it sent none."""
    try:
        with anyio.fail_after(RUNNER_SECONDS):
            reply = await runners.ask(dataflow_id, GetHistory())
    except TimeoutError:
        return None, f"the runner has not answered for {RUNNER_SECONDS:g} s"
    except NotAnswered as error:
        return None, str(error)
    if not isinstance(reply, RunnerHistory):
        return None, "the runner sent another reply"
    return reply, None
