"""Relation of this machine's clock to the coordinator's, from acknowledged heartbeats; pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from dora_config.protocol.recordings.fleet import ClockSample

SPAN_NS: Final = 10_000_000_000
"""Of these nanoseconds, the sample with the shortest round trip is stored."""
KEPT: Final = 30
"""Samples that a recording gets when it begins."""


class ClockSamples:
    """The best samples of the last minutes."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._kept: deque[ClockSample] = deque(maxlen=KEPT)
        self._best: ClockSample | None = None
        self._since = 0

    def add(self, sent_ns: int, received_ns: int, coordinator_ns: int) -> ClockSample | None:
        """Add a heartbeat; return a sample that is to be stored, once for each span.

        ``sent_ns``, ``received_ns``: CLOCK_MONOTONIC of this machine.
        """
        sample = ClockSample(
            boot_id=self._boot_id,
            monotonic_ns=(sent_ns + received_ns) // 2,
            coordinator_ns=coordinator_ns,
            round_trip_ns=received_ns - sent_ns,
        )
        if self._best is None:
            self._since = received_ns
            self._best = sample
        elif sample.round_trip_ns < self._best.round_trip_ns:
            self._best = sample
        if received_ns - self._since < SPAN_NS:
            return None
        stored, self._best = self._best, None
        self._kept.append(stored)
        return stored

    def recent(self) -> list[ClockSample]:
        """Return what a new recording needs, oldest first."""
        return [*self._kept, *([] if self._best is None else [self._best])]
