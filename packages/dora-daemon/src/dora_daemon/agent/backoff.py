"""Pauses between attempts to connect to the coordinator; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

FIRST = 0.5
LONGEST = 30.0
JITTER = 0.25
"""Share by which a pause is longer or shorter, so that a fleet does not reconnect at once."""


def waits(random: Callable[[], float]) -> Iterator[float]:
    """Yield seconds without end, doubling up to LONGEST; ``random`` returns 0 up to 1."""
    pause = FIRST
    while True:
        yield pause * (1 + JITTER * (2 * random() - 1))
        pause = min(LONGEST, pause * 2)
