"""How a peer's clocks differ from ours, from pings and their answers; pure.

The offset comes from the answer with the shortest round trip of the last 16, since its error is at
most half of that. Answers that contradict the newest one are dropped: a machine slept since. The
round trip shown to users is the median of the same answers.
"""

from __future__ import annotations

import statistics
from collections import deque

_KEPT = 16


class ClockOffset:
    """What to add to a time of ours to get the peer's, nanoseconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=_KEPT)
        self.round_trip_ns: int | None = None
        """Median of the last answers."""
        self.monotonic_ns: int | None = None
        self.wall_ns: int | None = None

    def answered(
        self,
        asked: int,
        answered: int,
        *,
        their_monotonic: int,
        their_wall: int,
        wall_less_monotonic: int,
    ) -> None:
        """A ping of ``asked`` came back at ``answered`` (CLOCK_MONOTONIC, ns), with their clocks in
        the middle. ``wall_less_monotonic`` is our CLOCK_REALTIME minus our CLOCK_MONOTONIC."""
        round_trip = answered - asked
        if round_trip < 0:
            return
        offset = their_monotonic - (asked + round_trip // 2)
        agreeing = [
            (trip, other)
            for trip, other in self._samples
            if abs(other - offset) <= (trip + round_trip) // 2 + 1
        ]
        self._samples = deque([*agreeing, (round_trip, offset)], maxlen=_KEPT)
        _, self.monotonic_ns = min(self._samples)
        self.round_trip_ns = int(statistics.median(trip for trip, _ in self._samples))
        # Wall clocks are set at any time, so their distance from the monotonic ones is the newest.
        theirs_less_monotonic = their_wall - their_monotonic
        self.wall_ns = self.monotonic_ns + theirs_less_monotonic - wall_less_monotonic

    def to_ours(self, their_monotonic: int, now: int) -> int:
        """A time of the peer's CLOCK_MONOTONIC on ours, never later than ``now``."""
        if self.monotonic_ns is None:
            return now
        return max(0, min(their_monotonic - self.monotonic_ns, now))
