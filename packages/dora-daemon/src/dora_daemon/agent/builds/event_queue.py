"""Events of one build on their way to the coordinator, in bounded batches; pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from dora_config.protocol.builds import NodeBuildEvent

MAX_LINES: Final = 2000
"""Printed lines in the queue; the oldest are dropped."""

MAX_BATCH: Final = 500


class BuildEventQueue:
    """One batch is unacknowledged at a time."""

    def __init__(self) -> None:
        self._events: deque[NodeBuildEvent] = deque()
        self._lines = 0
        self._dropped = 0
        self._is_unacknowledged = False

    def add(self, event: NodeBuildEvent) -> None:
        self._events.append(event)
        if event.what != "output":
            return
        self._lines += 1
        if self._lines > MAX_LINES:
            oldest = next(one for one in self._events if one.what == "output")
            self._events.remove(oldest)
            self._lines -= 1
            self._dropped += 1

    def next_batch(self) -> tuple[tuple[NodeBuildEvent, ...], int] | None:
        """Return the next events and the number of lines dropped before them, if they may be
        sent now.
        """
        if self._is_unacknowledged or not self._events:
            return None
        self._is_unacknowledged = True
        count = min(MAX_BATCH, len(self._events))
        batch = tuple(self._events.popleft() for _ in range(count))
        self._lines -= sum(event.what == "output" for event in batch)
        dropped, self._dropped = self._dropped, 0
        return batch, dropped

    def acknowledge(self) -> None:
        """Let the next batch be sent."""
        self._is_unacknowledged = False

    @property
    def is_empty(self) -> bool:
        return not self._events
