"""Items that wait, limited by number and bytes (pure)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

_T = TypeVar("_T")
KEEP_ALL = 10_000
"""Most messages that `keep_all` keeps."""
MAX_BYTES = 256 << 20
"""Bytes above which items are dropped."""


class Backlog(Generic[_T]):
    """A queue that drops its oldest items if it has more than `limit` items or `MAX_BYTES` bytes.

    The newest `always` items are kept regardless of their size.
    """

    def __init__(self, limit: int, *, always: int = 1) -> None:
        self._items: deque[tuple[_T, int]] = deque()
        self._limit = limit
        self._always = always
        self._bytes = 0

    def append(self, item: _T, size: int) -> int:
        """Add an item; return how many were dropped for it."""
        self._items.append((item, size))
        self._bytes += size
        dropped = 0
        while len(self._items) > self._limit or (
            self._bytes > MAX_BYTES and len(self._items) > self._always
        ):
            self.popleft()
            dropped += 1
        return dropped

    def popleft(self) -> _T:
        """Remove and return the oldest item. Raises IndexError."""
        item, size = self._items.popleft()
        self._bytes -= size
        return item

    def clear(self) -> None:
        self._items.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[_T]:
        return (item for item, _ in list(self._items))
