"""The newest messages of each input, passed from the receiving to the displaying thread."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import NamedTuple

from dora_node_api.events import InputEvent

MAX_MESSAGES = 1000
MAX_BYTES = 32 << 20
"""Of one input. Its newest message is kept in any case."""


class _Waiting(NamedTuple):
    event: InputEvent
    size: int


class NewestMessages:
    """Messages in the order of arrival; those of a full input replace its oldest ones.

    ``put`` never waits, so a slow viewer does not slow the senders.
    """

    def __init__(self, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._waiting: deque[_Waiting] = deque()
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False
        self.dropped: Counter[str] = Counter()
        """Replaced messages by input."""

    def put(self, event: InputEvent) -> None:
        added = _Waiting(event, event.value.nbytes)
        with self._changed:
            while self._full(event.id, added.size):
                self._drop_oldest(event.id)
            self._waiting.append(added)
            self._count(added, 1)
            self._changed.notify()

    def get(self, timeout: float) -> InputEvent | None:
        """Return the oldest message; None after ``timeout`` seconds or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            if not self._waiting:
                return None
            oldest = self._waiting.popleft()
            self._count(oldest, -1)
            return oldest.event

    def close(self) -> None:
        """End waiting; messages that wait can still be read."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether it is closed and empty."""
        with self._changed:
            return self._closed and not self._waiting

    def _full(self, name: str, size: int) -> bool:
        messages = self._messages[name]
        return messages > 0 and (
            messages >= self._max_messages or self._bytes[name] + size > self._max_bytes
        )

    def _drop_oldest(self, name: str) -> None:
        for index, one in enumerate(self._waiting):
            if one.event.id == name:
                del self._waiting[index]
                self._count(one, -1)
                self.dropped[name] += 1
                return

    def _count(self, one: _Waiting, sign: int) -> None:
        self._messages[one.event.id] += sign
        self._bytes[one.event.id] += sign * one.size
