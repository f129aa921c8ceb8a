"""Times of pings that make a connection flush its buffers.

Zenoh (1.10) over TLS sometimes keeps the end of a large message, with the sockets empty at both
ends, until something else is sent: its own keep-alive, a quarter of the lease later. While messages
are unacknowledged and nothing else is sent, the link pings, soon at first, then with growing
intervals, so that a consumer with a full queue costs nothing.
"""

from __future__ import annotations

from typing import Final

FIRST_NS: Final = 8_000_000
"""First interval after a frame of a large message."""
FIRST_SMALL_NS: Final = 40_000_000
"""First interval after small messages, whose acknowledgements wait for up to `ACK_DELAY_NS`."""
ACK_DELAY_NS: Final = 20_000_000
"""Longest time that an acknowledgement of small messages waits for others, or for a message of the
other direction to carry it."""
MAX_NS: Final = 512_000_000
"""Longest interval."""


class Keepalive:
    """Ping timer of one connection. Times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._sent_ns = 0
        self._first_ns = FIRST_NS
        self._seen_ns = 0
        self._since_ns = 0
        self._interval_ns = FIRST_NS

    def sent(self, now: int, *, large: bool) -> int:
        """Note a frame with message data; return when a ping may be due. Any thread."""
        self._first_ns = first = FIRST_NS if large else FIRST_SMALL_NS
        self._sent_ns = now
        return now + first

    def due(self, now: int, *, waiting: bool) -> int | None:
        """Return the nanoseconds until a ping is due: 0 for now, None if none is needed.

        ``waiting``: whether messages are unacknowledged. Each ping doubles the interval; another
        message resets it.
        """
        if self._sent_ns != self._seen_ns:
            self._seen_ns = self._since_ns = self._sent_ns
            self._interval_ns = self._first_ns
        if not waiting:
            return None
        left = self._since_ns + self._interval_ns - now
        if left > 0:
            return left
        self._since_ns = now
        self._interval_ns = min(2 * self._interval_ns, MAX_NS)
        return 0
