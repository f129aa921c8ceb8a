"""Bytes on the way over paths of any rate and delay, with a clock of the test."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, strategies as st

from dora_daemon.link.protocol.path_queue import (
    INITIAL_LIMIT,
    MAX_LIMIT,
    MIN_LIMIT,
    PIECE,
    PathQueue,
    TcpState,
)

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
PACKET = 1448


class Path:
    """One queue that passes packets on at a rate; acknowledgements come after a round trip."""

    def __init__(self, rate: int, round_trip: int, *, window: int = 1 << 30) -> None:
        """``rate``: bytes in a second; ``window``: bytes that TCP lets fly."""
        self.rate = rate
        self.round_trip = round_trip
        self.window = window
        self.queue = PathQueue()
        self.now = SECOND
        self.delays: list[int] = []
        """How long each packet has waited in the queue."""
        self.acknowledged = 0
        self.cut = False
        self.written = 0
        self.sent = 0
        self._free = 0
        self._flying: deque[tuple[int, int, int]] = deque()
        self._rtt = round_trip

    def state(self) -> TcpState:
        """Return what the kernel would."""
        while self._flying and self._flying[0][0] <= self.now and not self.cut:
            _, size, took = self._flying.popleft()
            self.acknowledged += size
            self._rtt += (took - self._rtt) // 8
            self._send()
        return TcpState(
            arrived=self.acknowledged,
            flying=self.sent - self.acknowledged,
            unsent=self.written - self.sent,
            written=self.written,
            rtt_ns=self._rtt,
        )

    def write(self, size: int) -> None:
        self.written += size
        self._send()

    def _send(self) -> None:
        while self.sent < self.written and self.sent - self.acknowledged < self.window:
            size = min(PACKET, self.written - self.sent)
            self.sent += size
            begins = max(self.now, self._free)
            self.delays.append(begins - self.now)
            self._free = begins + size * SECOND // self.rate
            arrives = self._free + self.round_trip
            self._flying.append((arrives, size, arrives - self.now))

    def run(self, seconds: float) -> float:
        """Send whenever it is allowed; return the share of the rate that was used."""
        begun, before = self.now, self.acknowledged
        end = begun + int(seconds * SECOND)
        while self.now < end:
            state = self.state()
            pause = self.queue.pause(state, self.now)
            if pause:
                self.now += pause
                continue
            size = self.queue.piece()
            self.queue.put(state, size, self.now)
            self.write(size)
        return (self.acknowledged - before) * SECOND / (self.now - begun) / self.rate

    def waits(self, share: float = 0.99) -> int:
        """Return how long packets have waited at most, but for the longest."""
        return sorted(self.delays)[int(len(self.delays) * share) - 1]


@pytest.mark.parametrize("round_trip_ms", [0.2, 2, 20, 100, 300])
@pytest.mark.parametrize("mbit", [5, 20, 200])
def test_a_path_is_full_and_its_queue_is_short(mbit: int, round_trip_ms: float) -> None:
    path = Path(mbit * 125_000, int(round_trip_ms * MILLISECOND))
    path.run(4 + round_trip_ms / 15)
    path.delays.clear()
    share = path.run(6)
    assert share > 0.9
    smallest = MIN_LIMIT * SECOND // path.rate
    assert path.waits(0.5) < 10 * MILLISECOND + path.round_trip // 6 + smallest
    assert path.waits() < 20 * MILLISECOND + path.round_trip // 4 + smallest


@pytest.mark.parametrize("round_trip_ms", [0.2, 20, 100])
def test_the_queue_at_the_start_is_short_soon(round_trip_ms: float) -> None:
    path = Path(20 * 125_000, int(round_trip_ms * MILLISECOND))
    path.run(5)
    assert path.waits(1) < 2 * path.round_trip + 3 * INITIAL_LIMIT * SECOND // path.rate
    late = sum(wait > path.round_trip // 2 + 15 * MILLISECOND for wait in path.delays)
    assert late * PACKET < 5 * INITIAL_LIMIT + 4 * path.rate * path.round_trip // SECOND


def test_it_follows_a_path_that_becomes_slow_and_fast_again() -> None:
    path = Path(12_500_000, 20 * MILLISECOND)
    path.run(5)
    path.rate = 1_250_000
    path.run(8)
    path.delays.clear()
    assert path.run(5) > 0.9
    assert path.waits() < 40 * MILLISECOND
    path.rate = 12_500_000
    path.run(5)
    assert path.run(5) > 0.9


@pytest.mark.parametrize("longer_ms", [20, 200])
def test_a_longer_route_does_not_look_like_a_queue_for_long(longer_ms: int) -> None:
    path = Path(2_500_000, 5 * MILLISECOND)
    path.run(5)
    path.round_trip += longer_ms * MILLISECOND
    path.run(25)
    assert path.run(5) > 0.7


def test_it_goes_on_after_a_cut() -> None:
    path = Path(2_500_000, 20 * MILLISECOND)
    path.run(5)
    path.cut = True
    assert path.run(12) == 0
    assert path.written - path.acknowledged < 200_000
    path.cut = False
    path.run(1)
    assert path.run(2) > 0.9


def test_a_fast_path_is_not_held_back_even_if_its_round_trips_are_long() -> None:
    """The processor is the limit: 250 kB in each millisecond."""
    path = Path(1_250_000_000, MILLISECOND // 10)
    pauses = []
    for number in range(300):
        if number == 200:
            path.round_trip = 8 * MILLISECOND
        path.now += MILLISECOND
        pauses.append(path.queue.pause(path.state(), path.now))
        path.queue.put(path.state(), 250_000, path.now)
        path.write(250_000)
    assert not any(pauses[100:])


def test_tcp_that_sends_less_than_the_path_takes_gets_little_ahead() -> None:
    """After losses TCP itself is the limit; what it has not sent is before other messages."""
    path = Path(2_500_000, 100 * MILLISECOND, window=20_000)
    path.run(20)
    before = path.acknowledged
    path.run(10)
    assert path.acknowledged - before > 10 * 0.9 * 20_000 / 0.1
    assert path.written - path.sent < 2 * MIN_LIMIT


@pytest.mark.parametrize(
    ("size", "period", "count"), [(30_000, SECOND // 30, 300), (300_000, 7 * SECOND, 20)]
)
def test_pictures_with_pauses_are_not_slowed_down(size: int, period: int, count: int) -> None:
    path = Path(2_500_000, 20 * MILLISECOND)
    path.run(5)
    times = []
    for _ in range(count):
        begun, left = path.now, size
        while left > 0:
            if pause := path.queue.pause(path.state(), path.now):
                path.now += pause
                continue
            piece = min(left, path.queue.piece())
            path.queue.put(path.state(), piece, path.now)
            path.write(piece)
            left -= piece
        while path.acknowledged < path.written:
            path.now += MILLISECOND
            path.state()
        times.append(path.now - begun)
        path.now = max(path.now, begun + period)
    alone = size * SECOND // path.rate + path.round_trip
    assert sorted(times)[count * 9 // 10] < alone * 5 // 4


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 20 * SECOND),  # since the last look
            st.integers(0, 1 << 30),  # arrived since then
            st.integers(0, 1 << 30),  # flying
            st.integers(0, 1 << 30),  # unsent
            st.integers(1, 10 * SECOND),  # round trip
        ),
        max_size=100,
    )
)
def test_it_never_stops_whatever_the_kernel_reports(
    steps: list[tuple[int, int, int, int, int]],
) -> None:
    queue, now, arrived = PathQueue(), SECOND, 0
    for passed, more, flying, unsent, round_trip in steps:
        now, arrived = now + passed, arrived + more
        state = TcpState(arrived, flying, unsent, arrived + flying + unsent, round_trip)
        assert 0 <= queue.pause(state, now) < SECOND // 10
        assert MIN_LIMIT <= queue.limit <= MAX_LIMIT
        assert queue.piece() >= PIECE
        idle = state._replace(flying=0, unsent=0, written=arrived)
        later = now + SECOND // 10
        if not queue.pause(idle, later):
            queue.put(idle, queue.piece(), later)
        now = later
