"""Messages of a stream until they are sent, bounded in memory, rate and size; pure.

The oldest messages are dropped for a slow reader and counted. Messages above the rate are not
decoded.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from dora_config.protocol.topics import TopicUpdate

MAX_PER_SECOND = 1000
"""Decoded messages per second, over all outputs of a stream."""
BYTES_PER_SECOND = 4 * 1024 * 1024
"""Bytes per second of decoded messages as JSON."""
BURST = 0.25
"""Seconds of both rates that may be used at once."""
MAX_SHARE = 0.25
"""Share of a processor for the pictures of an output; costly ones are shown less often."""
MAX_WAITING = 1000
"""Messages that wait for the next update; the oldest are dropped."""
MAX_NOTES = 20
"""Different notes in one stream."""


@dataclass(slots=True)
class _TokenBucket:
    """Tokens per second, up to BURST seconds of them."""

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


class Pace:
    """Limit of the rate at which a viewer gets messages, for each output."""

    def __init__(self, per_second: float | None) -> None:
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._due: dict[str, float] = {}

    def admits(self, name: str, now: float) -> bool:
        due = self._due.get(name, now)
        if now < due:
            return False
        # Messages that are a little late do not lower the rate; after a pause it is not exceeded.
        late = now - due > self._interval
        self._due[name] = (now if late else due) + self._interval
        return True

    def spent(self, name: str, now: float, seconds: float) -> None:
        """Admit no message until ``seconds`` are at most `MAX_SHARE` of the time."""
        rested = now + seconds * (1 / MAX_SHARE - 1)
        self._due[name] = max(self._due.get(name, now), rested)


class Samples:
    """Messages and notes for the next update."""

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: JSON in one update; a longer message is sent in pieces."""
        self._max_bytes = max_bytes
        self._long = ""
        """Message that is sent in pieces."""
        self._taken = 0
        """Characters of the present message that were taken."""
        self._count = _TokenBucket(MAX_PER_SECOND)
        self._bytes = _TokenBucket(BYTES_PER_SECOND)
        self._waiting: deque[tuple[str, str, int]] = deque()
        self._waiting_bytes = 0
        self._dropped: dict[str, int] = {}
        self._notes: dict[str, None] = {}
        self._noted: set[str] = set()

    def admits(self, now: float) -> bool:
        """Whether another message may be decoded; the caller drops it otherwise."""
        self._count.refill(now)
        self._bytes.refill(now)
        if self._count.left < 1 or self._bytes.left <= 0 or self._long:
            return False
        self._count.left -= 1
        return True

    def add(self, name: str, text: str, sent_ns: int) -> None:
        """Add a message as JSON."""
        self._bytes.left -= len(text)
        if len(text) > self._max_bytes:
            self._long = text
            return
        self._waiting.append((name, text, sent_ns))
        self._waiting_bytes += len(text)
        while len(self._waiting) > MAX_WAITING or self._waiting_bytes > self._max_bytes:
            oldest, gone, _ = self._waiting.popleft()
            self._waiting_bytes -= len(gone)
            self.drop(oldest, 1)

    def drop(self, name: str, count: int) -> None:
        self._dropped[name] = self._dropped.get(name, 0) + count

    def note(self, sentence: str) -> None:
        """Add a remark for the user, unless it was added before."""
        if sentence not in self._noted and len(self._noted) < MAX_NOTES:
            self._noted.add(sentence)
            self._notes[sentence] = None

    def __bool__(self) -> bool:
        return bool(self._waiting or self._dropped or self._notes or self._long)

    def take(self) -> TopicUpdate:
        """Return and clear all messages, in order of sending, or else the next piece; and notes."""
        piece = ""
        if not self._waiting:
            piece = self._long[self._taken : self._taken + self._max_bytes]
            self._taken += len(piece)
            if self._taken == len(self._long):
                self._long, self._taken = "", 0
        in_order = sorted(self._waiting, key=lambda one: one[2])
        update = TopicUpdate(
            samples=tuple(text for _, text, _ in in_order),
            dropped=self._dropped,
            notes=tuple(self._notes),
            piece=piece,
            more=bool(piece and self._long),
        )
        self._waiting.clear()
        self._waiting_bytes = 0
        self._dropped = {}
        self._notes = {}
        return update
