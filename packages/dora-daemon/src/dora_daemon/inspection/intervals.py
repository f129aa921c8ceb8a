"""Statistics of the intervals between messages of one output, over a sliding window; pure."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from dora_config.protocol.topics import TopicRate

PARTS = 100
"""Steps in which the window slides over its length; they bound its memory."""
NS = 1_000_000_000
"""Nanoseconds in a second."""


@dataclass(slots=True)
class _Part:
    """Intervals that ended in one part of the window; times in nanoseconds."""

    number: int
    messages: int = 0
    intervals: int = 0
    spanned: int = 0
    """Sum of all intervals."""
    exact: int = 0
    """Intervals between consecutive messages that were both read."""
    total: int = 0
    """Sum of the values."""
    squares: int = 0
    shortest: int = 0
    longest: int = 0


class Intervals:
    """Intervals of one output, from sequence numbers and times of sending.

    A late reader does not change them. Messages that were not read count for the average. Only
    intervals between consecutive messages count for extremes and deviation.
    """

    def __init__(self, name: str, window: float) -> None:
        self._name = name
        self._length = max(1, int(window * NS) // PARTS)
        self._parts: deque[_Part] = deque()
        self._last: tuple[int, int] | None = None

    def add(self, sequence: int, sent_ns: int) -> None:
        part = self._part(sent_ns)
        last, self._last = self._last, (sequence, sent_ns)
        if last is None:
            part.messages += 1
            return
        steps, interval = sequence - last[0], max(0, sent_ns - last[1])
        part.messages += steps
        part.intervals += steps
        part.spanned += interval
        if steps == 1:
            part.shortest = min(part.shortest, interval) if part.exact else interval
            part.longest = max(part.longest, interval)
            part.exact += 1
            part.total += interval
            part.squares += interval * interval

    def interrupt(self) -> None:
        """Ignore the time until the next message, because the node restarts."""
        self._last = None

    def rate(self, now_ns: int) -> TopicRate:
        self._forget(now_ns)
        messages = sum(part.messages for part in self._parts)
        intervals = sum(part.intervals for part in self._parts)
        if not intervals:
            return TopicRate(name=self._name, messages=messages)
        average = sum(part.spanned for part in self._parts) / intervals / NS
        rate = TopicRate(name=self._name, messages=messages, average=average)
        exact = [part for part in self._parts if part.exact]
        if not exact:
            return rate
        count, total = sum(part.exact for part in exact), sum(part.total for part in exact)
        variance = sum(part.squares for part in exact) * count - total * total
        return rate.model_copy(
            update={
                "minimum": min(part.shortest for part in exact) / NS,
                "maximum": max(part.longest for part in exact) / NS,
                "deviation": math.sqrt(max(0, variance)) / count / NS,
            }
        )

    def _part(self, at_ns: int) -> _Part:
        number = at_ns // self._length
        if not self._parts or self._parts[-1].number < number:
            self._parts.append(_Part(number))
            self._forget(at_ns)
        return self._parts[-1]

    def _forget(self, now_ns: int) -> None:
        oldest = now_ns // self._length - PARTS
        while self._parts and self._parts[0].number <= oldest:
            self._parts.popleft()
