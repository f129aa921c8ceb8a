"""How long to wait before the next attempt to reach the coordinator; pure but for its dice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

FIRST = 0.5
LONGEST = 30.0
JITTER = 0.25
"""Seconds, and the share by which a wait is longer or shorter, so that a fleet does not march in
step.
"""


def waits(dice: Callable[[], float]) -> Iterator[float]:
    """Seconds, doubling up to the longest, without end; ``dice`` gives numbers from 0 up to 1."""
    wait = FIRST
    while True:
        yield wait * (1 + JITTER * (2 * dice() - 1))
        wait = min(LONGEST, wait * 2)
