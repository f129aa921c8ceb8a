"""News of a build on their way to a reader who may be slow; bounded; pure."""

from __future__ import annotations

from collections import deque

from dora_config.protocol.builds import NodeBuildEvent

MOST_WAITING = 2000
"""Printed lines that wait; of more, the oldest are left out."""

MOST_AT_ONCE = 500


class NewsBuffer:
    """One portion is on its way at a time."""

    def __init__(self) -> None:
        self._waiting: deque[NodeBuildEvent] = deque()
        self._lines = 0
        self._left_out = 0
        self._under_way = False

    def add(self, news: NodeBuildEvent) -> None:
        self._waiting.append(news)
        if news.what != "output":
            return
        self._lines += 1
        if self._lines > MOST_WAITING:
            oldest = next(one for one in self._waiting if one.what == "output")
            self._waiting.remove(oldest)
            self._lines -= 1
            self._left_out += 1

    def next(self) -> tuple[tuple[NodeBuildEvent, ...], int] | None:
        """The next portion and how many lines are missing before it; None: nothing may go now."""
        if self._under_way or not self._waiting:
            return None
        self._under_way = True
        count = min(MOST_AT_ONCE, len(self._waiting))
        portion = tuple(self._waiting.popleft() for _ in range(count))
        self._lines -= sum(news.what == "output" for news in portion)
        left_out, self._left_out = self._left_out, 0
        return portion, left_out

    def taken(self) -> None:
        """The reader has the last portion."""
        self._under_way = False

    @property
    def is_empty(self) -> bool:
        return not self._waiting
