"""How much may be in flight: a path of any rate and delay, with a clock of the test."""

from __future__ import annotations

import pytest

from dora_daemon.link.protocol.path_rate import MIN_IN_FLIGHT, TARGET_NS, PathRate
from dora_daemon.link.protocol.windows import SendWindow

SECOND = 1_000_000_000
PICTURE = 640 * 480 * 3


class Path:
    """Carries messages one after the other at a rate, each with a delay in both directions."""

    def __init__(self, rate: int, round_trip: int) -> None:
        """``rate``: bytes in a second."""
        self.rate = rate
        self.round_trip = round_trip
        self.window: SendWindow[int] = SendWindow(256, 32 << 20)
        self.window.restrict(MIN_IN_FLIGHT)
        self.flow = PathRate()
        self.now = 0
        self.ages: list[int] = []
        self._free = 0
        self._coming: list[tuple[int, int, int]] = []
        self._number = 0

    def run(self, seconds: float, size: int) -> None:
        """Send whenever the window allows."""
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            while self.window.open:
                self._number += 1
                self.flow.sent(self._number, size, self.now)
                self.window.add(self._number, size, self.now)
                self._free = max(self._free, self.now) + size * SECOND // self.rate
                self._coming.append((self._free + self.round_trip, self._number, self.now))
            self.now, number, begun = self._coming.pop(0)
            self.ages.append(self.now - begun)
            limit = self.flow.acknowledged(number, self.now, self.round_trip)
            assert limit is not None
            self.window.restrict(limit)
            self.window.acknowledge(number)

    def throughput(self, seconds: float, size: int) -> float:
        """Run; return the share of the rate that was used."""
        before, begun = len(self.ages), self.now
        self.run(seconds, size)
        return (len(self.ages) - before) * size * SECOND / (self.now - begun) / self.rate


@pytest.mark.parametrize("mbit", [1, 10, 20, 100])
def test_a_slow_path_carries_one_picture_at_a_time(mbit: int) -> None:
    path = Path(mbit * 125_000, SECOND // 1000)
    share = path.throughput(20, PICTURE)
    assert max(path.ages) <= PICTURE * SECOND // path.rate + path.round_trip
    assert share > 0.95


@pytest.mark.parametrize("round_trip_ms", [0, 1, 20, 100])
@pytest.mark.parametrize("mbit", [20, 100, 1000, 10_000])
@pytest.mark.parametrize("size", [100_000, PICTURE])
def test_a_path_is_filled_and_its_messages_are_new(
    mbit: int, round_trip_ms: int, size: int
) -> None:
    path = Path(mbit * 125_000, round_trip_ms * SECOND // 1000)
    path.run(5, size)
    path.ages.clear()
    share = path.throughput(5, size)
    transfer = size * SECOND // path.rate
    assert (
        max(path.ages)
        <= 2 * transfer + 3 * path.round_trip + TARGET_NS + MIN_IN_FLIGHT * SECOND // path.rate
    )
    alone = transfer / (transfer + path.round_trip)
    assert share > min(0.9, alone * 0.99)


def test_what_is_in_flight_follows_a_path_that_becomes_slow_and_fast_again() -> None:
    path = Path(125_000_000, SECOND // 1000)
    path.run(2, PICTURE)
    assert path.window.limit > 5 * PICTURE
    path.rate = 2_500_000
    path.run(10, PICTURE)
    path.ages.clear()
    path.run(5, PICTURE)
    assert max(path.ages) < 2 * PICTURE * SECOND // path.rate
    path.rate = 125_000_000
    path.run(3, PICTURE)
    assert path.window.limit > 5 * PICTURE


def test_a_cut_is_not_a_slow_path() -> None:
    flow = PathRate()
    flow.sent(1, PICTURE, 0)
    flow.restart()
    assert flow.acknowledged(1, 60 * SECOND, 0) is None
    flow.sent(2, PICTURE, 60 * SECOND)
    limit = flow.acknowledged(2, 60 * SECOND + SECOND // 100, 0)
    assert limit is not None
    assert limit > PICTURE
