"""Restart policy of one node: whether and when an ended process is started again; pure."""

from __future__ import annotations

from dora_config.dataflow.resolved import RestartSettings
from dora_node_api.frozen import Frozen

MAX_DOUBLINGS = 16


class RestartHistory(Frozen):
    """Restarts in the current window, and the time of the first of them."""

    counted: int = 0
    window_start: float | None = None


class RestartAfter(Frozen):
    """Start again after ``delay`` seconds; ``history`` includes this restart."""

    delay: float
    history: RestartHistory


class GiveUp(Frozen):
    """Too many restarts: the node fails for ``reason``."""

    reason: str


def decide(
    settings: RestartSettings,
    history: RestartHistory,
    *,
    failed: bool,
    inputs_ended: bool,
    now: float,
) -> RestartAfter | GiveUp | None:
    """Apply the policy to a process that ended by itself; None: the node stays ended.

    ``inputs_ended``: all inputs have ended and are empty, so a new process would have nothing to
    do. ``now``: seconds of any monotonic clock.
    """
    if settings.policy == "never" or inputs_ended:
        return None
    if settings.policy == "on-failure" and not failed:
        return None
    history = _current(settings, history, now)
    if settings.max_restarts and history.counted >= settings.max_restarts:
        return GiveUp(f"max restarts ({settings.max_restarts}) exceeded")
    start = now if history.window_start is None else history.window_start
    return RestartAfter(
        _delay(settings, history.counted), RestartHistory(history.counted + 1, start)
    )


def _current(settings: RestartSettings, history: RestartHistory, now: float) -> RestartHistory:
    """Return the history, empty once the window since its first restart has passed."""
    if settings.window is None or history.window_start is None:
        return history
    return RestartHistory() if now - history.window_start > settings.window else history


def _delay(settings: RestartSettings, counted: int) -> float:
    if settings.delay is None:
        return 0.0
    delay = settings.delay * float(2 ** min(counted, MAX_DOUBLINGS))
    return delay if settings.max_delay is None else min(delay, settings.max_delay)
