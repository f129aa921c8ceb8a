"""The runner of one dataflow: supervises its nodes, in the foreground or in a process of its own.

``dora run`` calls ``run_foreground``; a daemon starts ``python -m dora_daemon.runner DIRECTORY``
(see :mod:`dora_daemon.process_tree.runtime_dir` for the files in the directory).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dora_config.protocol.run_plan import RunPlan
    from dora_config.protocol.runner_events import DataflowResult, RunnerEvent

__all__ = ["run_foreground"]


def run_foreground(
    plan: RunPlan,
    *,
    on_event: Callable[[RunnerEvent], None] | None = None,
    on_signal: Callable[[], None] = lambda: None,
    lossless: bool = False,
    before_start: Callable[[Path], None] | None = None,
) -> DataflowResult:
    """Run a dataflow to its end and return its result; call this on the main thread.

    ``on_event`` is called on a thread of its own, one event at a time and in order. When it is too
    slow, log lines (only those) are dropped and counted; with ``lossless`` the nodes that print are
    held back instead, and the end waits for it. SIGINT, SIGTERM and SIGHUP stop the dataflow
    gracefully, a second one kills; ``on_signal`` is called for each, on the main thread, and must
    unblock an ``on_event`` that may wait forever. ``before_start`` is called on a thread, with the
    runtime directory, when the runner's sockets exist and no node has started. Raises
    :class:`dora_daemon.runner.errors.PreparationError` if a node cannot be prepared; then no node
    was spawned.
    """
    from dora_daemon.runner.foreground import run

    return run(
        plan, on_event=on_event, on_signal=on_signal, lossless=lossless, before_start=before_start
    )
