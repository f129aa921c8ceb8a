"""Pauses between attempts to connect to the coordinator; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

FIRST = 0.5
MAX_PAUSE = 20.0
"""With its jitter and a connection it is less than 30 s: within these a fleet is complete again."""
JITTER = 0.25
"""Share by which a pause is longer or shorter, so that a fleet does not reconnect at once."""


def waits(random: Callable[[], float]) -> Iterator[float]:
    """Yield seconds without end, doubling up to MAX_PAUSE; ``random`` returns 0 up to 1."""
    pause = FIRST
    while True:
        yield pause * (1 + JITTER * (2 * random() - 1))
        pause = min(MAX_PAUSE, pause * 2)
