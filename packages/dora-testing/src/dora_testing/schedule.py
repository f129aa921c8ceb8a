"""What happens at which virtual time; pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Schedule:
    """Actions by time; those of one time in the order in which they were added."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    def add(self, at: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._entries, (at, next(self._numbers), action))

    @property
    def next(self) -> int | None:
        """Time of the next action; None: there is none."""
        return self._entries[0][0] if self._entries else None

    def take(self, now: int) -> Callable[[], None] | None:
        """Return the first action that is due."""
        if not self._entries or self._entries[0][0] > now:
            return None
        return heapq.heappop(self._entries)[2]
