"""Events of one runner that are kept for `dora why`: in memory, and in a file beside the logs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dora_config.history.entries import (
    FIRST_ENTRIES,
    LAST_ENTRIES,
    HistoryEntry,
    HistoryEvent,
    KeptEvents,
    RunBegan,
    RunEnded,
    RunnerWarned,
    edges_of,
    kept_result,
)
from dora_config.history.file import HistoryFile, read_history
from dora_config.protocol import runner_events as reports
from dora_config.protocol.run_plan import RunPlan
from dora_daemon._version import __version__

MAX_LINES = 2 * (FIRST_ENTRIES + LAST_ENTRIES)
"""Lines appended to the file before it is replaced by the events that are kept."""


class KeptHistory:
    """Events in a file, and the last ones in memory as well, because the disk may be full."""

    def __init__(
        self, path: Path, began: RunBegan, *, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` returns Unix time."""
        self._clock = clock
        self._file = HistoryFile(path)
        self._kept = KeptEvents()
        if began.recovered is not None:
            with suppress(OSError):  # the earlier start may have ended before it wrote the file
                entries = read_history(path)
                self._kept = KeptEvents(entries)
                self._file.lines = len(entries)
        self.add(began)

    @property
    def dropped(self) -> int:
        return self._kept.dropped

    def entries(self) -> tuple[HistoryEntry, ...]:
        return self._kept.entries()

    def note(self, event: reports.RunnerEvent) -> None:
        """Keep an event of the runner if an explanation needs it."""
        match event:
            case reports.NodeFailed(result=result):
                self.add(reports.NodeFailed(result=kept_result(result)))
            case reports.DataflowFinished(result=result):
                self.add(ended(result))
            case reports.RunnerState():
                pass
            case _:
                self.add(event)

    def add(self, event: HistoryEvent) -> None:
        """Keep an event, with the present time."""
        entry = HistoryEntry(at=self._clock(), event=event)
        self._kept.add(entry)
        problem = self._file.append(entry)
        if self._file.lines > MAX_LINES:
            problem = self._file.replace(self._kept.saved()) or problem
        if problem is not None:
            warned = RunnerWarned(level="warn", text=problem)
            self._kept.add(HistoryEntry(at=self._clock(), event=warned))


def record_failed_start(path: Path, plan: RunPlan, error: str) -> None:
    """Write the events of a run whose nodes could not be prepared."""
    history = KeptHistory(path, beginning(plan))
    history.add(RunEnded(ok=False, error=error))


def ended(result: reports.DataflowResult) -> RunEnded:
    """Return the event about the end of all nodes; their results were events before."""
    return RunEnded(ok=result.ok, stop_reason=result.stop_reason, error=result.error)


def beginning(plan: RunPlan) -> RunBegan:
    """Return the first event of a runner."""
    return RunBegan(
        name=plan.name,
        nodes=tuple(node.id for node in plan.resolved.nodes),
        edges=edges_of(plan.resolved),
        recovered=plan.recovered,
        pid=os.getpid(),
        version=__version__,
    )
