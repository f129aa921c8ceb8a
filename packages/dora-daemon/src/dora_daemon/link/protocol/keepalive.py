"""When to write something only so that a connection writes out what it still holds; pure.

Zenoh (1.10) over TLS now and then keeps the end of a large message to itself, with the sockets
empty at both ends, until something else is sent: its keep-alive, a quarter of the lease later. So
while anything is not acknowledged and nothing else is sent, a ping follows, soon at first, then
more rarely: a reader that lets its queue fill must cost nothing.
"""

from __future__ import annotations

from typing import Final

FIRST_NS: Final = 8_000_000
LARGEST_NS: Final = 512_000_000


class Nudging:
    """Of one connection. Times are nanoseconds of CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.sent_ns = 0
        """When a part of a message was sent last; whoever sends stores it."""
        self._seen_ns = 0
        self._since_ns = 0
        self._pause_ns = FIRST_NS

    def due(self, now: int, *, waiting: bool) -> int | None:
        """Nanoseconds until a nudge is due, 0 for now; None while it needs none.

        ``waiting``: whether the other side has not acknowledged all. After 0 the next one is due in
        twice the time, unless more of a message is sent.
        """
        if self.sent_ns != self._seen_ns:
            self._seen_ns = self._since_ns = self.sent_ns
            self._pause_ns = FIRST_NS
        if not waiting:
            return None
        left = self._since_ns + self._pause_ns - now
        if left > 0:
            return left
        self._since_ns = now
        self._pause_ns = min(2 * self._pause_ns, LARGEST_NS)
        return 0
