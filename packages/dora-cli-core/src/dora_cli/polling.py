"""Waits for a condition that can only be polled."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], within: float, *, every: float = 0.05) -> bool:
    """Return whether the condition became true within the time (seconds)."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True
