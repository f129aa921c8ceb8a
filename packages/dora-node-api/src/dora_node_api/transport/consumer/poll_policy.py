"""Policy of polling before a waiting consumer sleeps; pure.

Waking a sleeping process on another core is the largest part of a message's latency. When recent
sleeps ended soon, the next wait first polls the inputs' counters for a while, yielding the
processor between two looks, and only then sleeps. Polling continues while it succeeds; after
failures it is tried more rarely.

The first polls are longer than the later ones: two nodes that answer each other and both sleep take
two wake-ups for a turn, more than polling needs once neither sleeps.

A node that has sent since its last wait, and reads from another machine, probably waits for an
answer. It takes longer than on one machine, so such a wait may poll for longer. A node that only
reads a stream does not.
"""

from __future__ import annotations

# The longest polls before a sleep, in general and at the first tries. An echo of 1 MiB takes 45 us
# on fast processors, 200 us on slow ones.
POLL_NS = 250_000
FIRST_POLL_NS = 500_000
FIRST_POLLS = 8
SOON_NS = 500_000
"""Length of a sleep, wake-up included, after which polling may be faster."""
ANSWER_NS = 1_000_000
"""Limit of polls and of sleeps for an answer from another machine (0.9 ms with 64 KiB and TLS)."""
MAX_CREDIT = 8
"""Largest credit; a poll adds one if it finds a message, otherwise it takes two."""
MIN_PATIENCE = 2
MAX_PATIENCE = 512
"""Range of the sleeps that end soon before polling is tried."""


class PollPolicy:
    """Polls while ``credit`` is left; ``polled`` and ``slept`` change it."""

    __slots__ = ("_first", "_patience", "_soon", "answer", "credit")

    def __init__(self) -> None:
        self.credit = 0
        self.answer = False
        """Whether the present wait is for an answer from another machine."""
        self._patience = MIN_PATIENCE
        """Sleeps that end soon before polling is tried; doubled whenever polling failed."""
        self._soon = 0
        self._first = 0

    def poll_ns(self) -> int:
        """Return how long the next poll may take, in nanoseconds."""
        if self.answer:
            return ANSWER_NS
        if self._first:
            self._first -= 1
            return FIRST_POLL_NS
        return POLL_NS

    def polled(self, *, found: bool) -> None:
        """Note whether a poll has found a message."""
        if found:
            if self.credit < MAX_CREDIT:
                self.credit += 1
            self._patience = MIN_PATIENCE
            return
        self.credit = max(0, self.credit - 2)
        if not self.credit and self._patience < MAX_PATIENCE:
            self._patience *= 2

    def slept(self, duration_ns: int) -> None:
        """Note how long the last sleep took that a message ended."""
        if duration_ns >= (ANSWER_NS if self.answer else SOON_NS):
            return
        self._soon += 1
        if self._soon >= self._patience:
            self._soon = 0
            self.credit = 2
            self._first = FIRST_POLLS
