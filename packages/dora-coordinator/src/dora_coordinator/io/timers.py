"""Timers of the state machine."""

from __future__ import annotations

import heapq

from dora_coordinator.state.events import TimerKey


class TimerQueue:
    """Due times by key; a new time of a key replaces the earlier one."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimerKey]] = []
        self._armed: dict[TimerKey, int] = {}
        self._count = 0

    def arm(self, key: TimerKey, at: float) -> None:
        self._count += 1
        self._armed[key] = self._count
        heapq.heappush(self._heap, (at, self._count, key))

    def cancel(self, key: TimerKey) -> None:
        self._armed.pop(key, None)

    def next(self) -> float | None:
        """Return a lower bound of the next due time; None: the queue is empty."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[TimerKey]:
        """Remove and return the timers that fire now."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, count, key = heapq.heappop(self._heap)
            if self._armed.get(key) == count:
                del self._armed[key]
                due.append(key)
        return due
