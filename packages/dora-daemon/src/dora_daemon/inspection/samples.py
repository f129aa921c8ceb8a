"""Which messages are shown and which are dropped: bounded in memory, rate and size; pure.

The reader may be slow: what waits for it is bounded, the oldest goes first, and what went is
counted. Messages that come faster than anybody reads are not even looked at.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dora_config.protocol.topics import TopicUpdate

MOST_PER_SECOND = 1000
"""Messages that are decoded, over all outputs of a watch."""
BYTES_PER_SECOND = 4 * 1024 * 1024
"""Of JSON."""
BURST = 0.25
"""Seconds of the above that may come at once."""
MOST_WAITING = 1000
MOST_NOTES = 20


@dataclass(slots=True)
class Allowance:
    """So much a second, saved up for a moment."""

    per_second: float
    left: float = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.per_second * BURST
        self.since = 0.0

    def refill(self, now: float) -> None:
        if self.since:
            earned = (now - self.since) * self.per_second
            self.left = min(self.left + earned, self.per_second * BURST)
        self.since = now


class Samples:
    """What a watch has seen and nobody has taken yet."""

    def __init__(self, most_bytes: int) -> None:
        """``most_bytes``: of JSON that may wait."""
        self._most_bytes = most_bytes
        self._count = Allowance(MOST_PER_SECOND)
        self._bytes = Allowance(BYTES_PER_SECOND)
        self._waiting: deque[tuple[str, str, int]] = deque()
        self._waiting_bytes = 0
        self._dropped: dict[str, int] = {}
        self._notes: dict[str, None] = {}
        self._noted: set[str] = set()

    def wants(self, now: float) -> bool:
        """Whether another message may be decoded; one that may not is to be dropped."""
        self._count.refill(now)
        self._bytes.refill(now)
        if self._count.left < 1 or self._bytes.left <= 0:
            return False
        self._count.left -= 1
        return True

    def add(self, name: str, text: str, sent_ns: int) -> None:
        """A message as JSON."""
        self._bytes.left -= len(text)
        self._waiting.append((name, text, sent_ns))
        self._waiting_bytes += len(text)
        while len(self._waiting) > MOST_WAITING or (
            self._waiting_bytes > self._most_bytes and len(self._waiting) > 1
        ):
            oldest, gone, _ = self._waiting.popleft()
            self._waiting_bytes -= len(gone)
            self.drop(oldest, 1)

    def drop(self, name: str, count: int) -> None:
        self._dropped[name] = self._dropped.get(name, 0) + count

    def note(self, sentence: str) -> None:
        """A remark for the user, told once."""
        if sentence not in self._noted and len(self._noted) < MOST_NOTES:
            self._noted.add(sentence)
            self._notes[sentence] = None

    def __bool__(self) -> bool:
        return bool(self._waiting or self._dropped or self._notes)

    def take(self) -> TopicUpdate:
        """All that waits, in the order in which it was sent."""
        in_order = sorted(self._waiting, key=lambda one: one[2])
        news = TopicUpdate(
            samples=tuple(text for _, text, _ in in_order),
            dropped=self._dropped,
            notes=tuple(self._notes),
        )
        self._waiting.clear()
        self._waiting_bytes = 0
        self._dropped = {}
        self._notes = {}
        return news
