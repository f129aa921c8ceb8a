"""The runner of one dataflow: supervises its nodes, in the foreground or as a process of its own.

``run_foreground`` is what ``dora run`` calls; ``python -m dora_daemon.runner DIRECTORY`` is what a
daemon starts (see :mod:`dora_daemon.process_tree.runtime_dir` for what lies in the directory).
"""

from __future__ import annotations

from collections.abc import Callable
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
) -> DataflowResult:
    """Run a dataflow to its end and return how it ended; call it on the main thread.

    ``on_event`` is called on a thread of its own, one event at a time and in order. When it falls
    behind, log lines (only those) are shed and counted; with ``lossless`` the nodes that print are
    held back instead, and the end waits for it. SIGINT, SIGTERM and SIGHUP stop the dataflow
    gracefully, a second one kills; ``on_signal`` is called for each, on the main thread, and makes
    ``on_event`` return if it may wait for ever. Raises
    :class:`dora_daemon.runner.errors.RunnerError` (PreparationError) when a node cannot be
    prepared; then none was spawned.
    """
    from dora_daemon.runner.foreground import run

    return run(plan, on_event=on_event, on_signal=on_signal, lossless=lossless)
