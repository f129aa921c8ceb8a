"""Limit of a stream's large messages in flight: the bytes that its path carries in a short time.

More messages would wait in link, kernel and network, and arrive late; the queue of the stream
drops old messages by its policy instead. The path includes decoding and the copy into the peer's
local queues, because the peer acknowledges after them. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import Final

TARGET_NS: Final = 50_000_000
"""Nanoseconds of traffic in flight in addition to the round trips of the path."""
MIN_IN_FLIGHT: Final = 128 * 1024
"""Bytes that may be in flight on any path."""


class PathRate:
    """Measures the rate of acknowledged bytes. Times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, int, int, int]] = deque()
        """Sequence, bytes, time of the send, and the bytes that were acknowledged until then."""
        self._acknowledged = 0

    def sent(self, sequence: int, nbytes: int, now: int) -> None:
        """Note a large message."""
        self._sent.append((sequence, nbytes, now, self._acknowledged))

    def acknowledged(self, sequence: int, now: int, round_trip_ns: int) -> int | None:
        """Return the bytes that may be in flight from now on; None: as before.

        Two round trips: a path whose rate is not known yet is filled in a few of them.
        """
        last: tuple[int, int] | None = None
        while self._sent and self._sent[0][0] <= sequence:
            _, nbytes, sent_at, before = self._sent.popleft()
            self._acknowledged += nbytes
            last = (sent_at, before)
        if last is None:
            return None
        sent_at, before = last
        delivered, elapsed = self._acknowledged - before, max(1, now - sent_at)
        return max(MIN_IN_FLIGHT, delivered * (TARGET_NS + 2 * round_trip_ns) // elapsed)

    def restart(self) -> None:
        """Forget what was sent before the connection was lost."""
        self._sent.clear()
