"""Offset between a peer's clocks and ours, from pings and their answers.

The offset comes from the answer with the shortest round trip of the last 16, since its error is at
most half of that. Answers that contradict the newest one are dropped: a machine was suspended since
then. The round trip shown to users is the median of the same answers.
"""

from __future__ import annotations

import statistics
from collections import deque

_KEPT_SAMPLES = 16
"""Number of answers that are kept."""


class ClockOffset:
    """The peer's clocks minus ours, in nanoseconds; None until the first answer."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=_KEPT_SAMPLES)
        self.round_trip_ns: int | None = None
        """Median of the last answers."""
        self.shortest_ns: int | None = None
        """Shortest round trip of this connection, which estimates the path without queues."""
        self.monotonic_ns: int | None = None
        self.wall_ns: int | None = None

    def new_connection(self) -> None:
        """Measure the shortest round trip again: the path may be another one."""
        self.shortest_ns = None

    def answered(
        self,
        sent: int,
        answered: int,
        *,
        their_monotonic: int,
        their_wall: int,
        wall_less_monotonic: int,
    ) -> None:
        """Add an answer: a ping sent at ``sent`` and answered at ``answered`` (CLOCK_MONOTONIC,
        ns), with the peer's clocks in between. ``wall_less_monotonic`` is our CLOCK_REALTIME minus
        our CLOCK_MONOTONIC."""
        round_trip = answered - sent
        if round_trip < 0:
            return
        offset = their_monotonic - (sent + round_trip // 2)
        agreeing = [
            (trip, other)
            for trip, other in self._samples
            if abs(other - offset) <= (trip + round_trip) // 2 + 1
        ]
        self._samples = deque([*agreeing, (round_trip, offset)], maxlen=_KEPT_SAMPLES)
        _, self.monotonic_ns = min(self._samples)
        self.shortest_ns = min(round_trip, self.shortest_ns or round_trip)
        self.round_trip_ns = int(statistics.median(trip for trip, _ in self._samples))
        # A wall clock may be set at any time, so use only its newest offset from the monotonic.
        theirs_less_monotonic = their_wall - their_monotonic
        self.wall_ns = self.monotonic_ns + theirs_less_monotonic - wall_less_monotonic

    def to_ours(self, their_monotonic: int, now: int) -> int:
        """Convert a time of the peer's CLOCK_MONOTONIC to ours, at most ``now``."""
        if self.monotonic_ns is None:
            return now
        return max(0, min(their_monotonic - self.monotonic_ns, now))
