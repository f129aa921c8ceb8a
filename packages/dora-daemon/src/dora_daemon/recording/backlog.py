"""Messages between the reading and the writing thread of a recorder, bounded in bytes; pure."""

from __future__ import annotations

from collections import deque

from dora_daemon.recording.counts import Counts
from dora_daemon.recording.message import RecordedMessage


class Backlog:
    """Drops and counts the oldest messages when it is full."""

    def __init__(self, max_bytes: int, lost: Counts) -> None:
        self._max_bytes = max_bytes
        self._lost = lost
        self._waiting: deque[RecordedMessage] = deque()
        self._bytes = 0

    def add(self, message: RecordedMessage) -> None:
        self._waiting.append(message)
        self._bytes += len(message.data)
        while self._bytes > self._max_bytes and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._bytes -= len(oldest.data)
            self._lost.add(oldest.topic, 1)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> list[RecordedMessage]:
        """Return and remove all messages, by the time they were sent."""
        taken = sorted(self._waiting, key=lambda one: one.log_time)
        self._waiting.clear()
        self._bytes = 0
        return taken
