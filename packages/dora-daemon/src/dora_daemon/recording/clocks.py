"""Times of several machines on the coordinator's clock; pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from dora_config.protocol.recordings import ClockSample

BUCKET_NS: Final = 60_000_000_000
"""Of samples this close together, only the one with the shortest round trip is used: delays on the
way falsify the others.
"""


class ClockCorrection:
    """Converts CLOCK_MONOTONIC of one boot of a machine to the coordinator's Unix time.

    The clocks of machines drift apart by some 0.1 s an hour, so times between two samples are
    interpolated. Earlier and later times have the offset of the nearest sample. Order is kept.
    """

    def __init__(self, samples: Iterable[ClockSample], boot_id: str) -> None:
        best: dict[int, ClockSample] = {}
        for sample in samples:
            if sample.boot_id != boot_id:
                continue
            bucket = sample.monotonic_ns // BUCKET_NS
            if bucket not in best or sample.round_trip_ns < best[bucket].round_trip_ns:
                best[bucket] = sample
        self._machine: list[int] = []
        self._coordinator: list[int] = []
        for sample in sorted(best.values(), key=lambda one: one.monotonic_ns):
            # A coordinator that was restarted may have another clock; time does not go back.
            latest = self._coordinator[-1] if self._coordinator else sample.coordinator_ns
            self._machine.append(sample.monotonic_ns)
            self._coordinator.append(max(sample.coordinator_ns, latest))
        self.round_trip_ns = min((one.round_trip_ns for one in best.values()), default=None)
        """Shortest round trip; times are off by half of it at most. None without samples."""

    def __bool__(self) -> bool:
        return bool(self._machine)

    def coordinator_ns(self, monotonic_ns: int) -> int:
        """Return the coordinator's time; there must be samples."""
        machine, coordinator = self._machine, self._coordinator
        after = bisect_right(machine, monotonic_ns)
        if after == 0 or after == len(machine):
            near = min(after, len(machine) - 1)
            return coordinator[near] + monotonic_ns - machine[near]
        before = after - 1
        span = machine[after] - machine[before]
        rise = coordinator[after] - coordinator[before]
        return coordinator[before] + (monotonic_ns - machine[before]) * rise // span
