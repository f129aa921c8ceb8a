"""Restart policy of one node: whether and when an ended process is started again; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dora_config.dataflow.resolved import RestartSettings
from dora_config.retry import Retry, RetryPolicy


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Too many restarts: the node fails for ``reason``."""

    reason: str


def restart_delay(
    settings: RestartSettings, retry: Retry, *, failed: bool, inputs_ended: bool, now: float
) -> float | GiveUp | None:
    """Return the seconds until a process that ended by itself is started again.

    None: the node stays ended. ``inputs_ended``: all inputs have ended and are empty, so a new
    process would receive no messages. ``now``: seconds of any monotonic clock.
    """
    if settings.policy == "never" or inputs_ended:
        return None
    if settings.policy == "on-failure" and not failed:
        return None
    most = settings.max_restarts
    policy = RetryPolicy(settings.delay or 0.0, settings.max_delay, most, settings.window)
    delay = retry.failed(policy, now)
    return GiveUp(f"max restarts ({most}) exceeded") if delay == math.inf else delay
