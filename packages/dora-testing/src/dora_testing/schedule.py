"""Schedule of events in virtual time; pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol

from dora_node_api.protocol.lockstep import START_NS


class Timeline(Protocol):
    """A virtual clock."""

    @property
    def now_ns(self) -> int: ...
    @property
    def seconds(self) -> float:
        """Time of messages."""

    def at(self, time_ns: int, action: Callable[[], None]) -> None: ...


class Schedule:
    """Actions by time; those of one time in the order in which they were added."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self.began: int | None = None
        """Time of the first Go."""
        self._entries: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()

    @property
    def seconds(self) -> float:
        return 0.0 if self.began is None else (self.now_ns - self.began) / 1e9

    def at(self, time_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._entries, (time_ns, next(self._numbers), action))

    @property
    def next(self) -> int | None:
        """Time of the next action; None: there is none."""
        return self._entries[0][0] if self._entries else None

    def take(self) -> Callable[[], None] | None:
        """Return the first action that is due."""
        if not self._entries or self._entries[0][0] > self.now_ns:
            return None
        return heapq.heappop(self._entries)[2]
