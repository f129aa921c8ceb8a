"""Whether a process that ended is started again, and after how long; pure."""

from __future__ import annotations

from dora_config.dataflow.resolved import RestartSettings
from dora_node_api.frozen import Frozen

MOST_DOUBLINGS = 16


class RestartHistory(Frozen):
    """Restarts counted so far in the current window, and when the first of them was."""

    counted: int = 0
    window_start: float | None = None


class RestartAfter(Frozen):
    """Start again after ``delay`` seconds; ``history`` counts this restart."""

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
    """What the policy says about a process that ended on its own; ``None``: it stays ended.

    ``inputs_ended``: all inputs are closed and nothing waits in them, so a new process would have
    nothing to do. ``now`` in seconds, of any clock that does not go back.
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
    """The history, forgotten once the window since its first restart has passed."""
    if settings.window is None or history.window_start is None:
        return history
    return RestartHistory() if now - history.window_start > settings.window else history


def _delay(settings: RestartSettings, counted: int) -> float:
    if settings.delay is None:
        return 0.0
    delay = settings.delay * float(2 ** min(counted, MOST_DOUBLINGS))
    return delay if settings.max_delay is None else min(delay, settings.max_delay)
