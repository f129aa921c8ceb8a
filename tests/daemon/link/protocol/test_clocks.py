"""Clock offset and round trip from pings."""

from __future__ import annotations

from dora_daemon.link.protocol.clocks import ClockOffset


def test_the_shortest_round_trip_gives_the_offset() -> None:
    clock = ClockOffset()
    assert clock.to_ours(123, 1000) == 1000
    clock.answered(
        0, 1000, their_monotonic=5_000_900, their_wall=9_000_900, wall_less_monotonic=4_000_000
    )
    clock.answered(
        2000, 2010, their_monotonic=5_002_005, their_wall=9_002_005, wall_less_monotonic=4_000_000
    )
    assert clock.monotonic_ns == 5_000_000
    assert clock.wall_ns == 5_000_000
    assert clock.to_ours(5_003_000, 10_000) == 3_000
    assert clock.to_ours(5_030_000, 10_000) == 10_000


def test_the_round_trip_shown_is_the_median_of_the_last_answers() -> None:
    clock = ClockOffset()

    def answered(*round_trips: int) -> int | None:
        for taken in round_trips:
            clock.answered(
                0, taken, their_monotonic=taken // 2, their_wall=0, wall_less_monotonic=0
            )
        return clock.round_trip_ns

    assert answered(900) == 900
    assert answered(100, 500) == 500
    assert answered(*[700] * 13) == 700
    assert answered(*[300] * 16) == 300, "earlier answers no longer count"


def answer(clock: ClockOffset, at: int, trip: int, *, monotonic: int, wall: int) -> None:
    """One answer: the peer's clocks are ahead by ``monotonic`` and ``wall``; ours are equal."""
    middle = at + trip // 2
    clock.answered(
        at,
        at + trip,
        their_monotonic=middle + monotonic,
        their_wall=middle + wall,
        wall_less_monotonic=0,
    )


def test_a_wall_clock_that_is_set_counts_from_the_next_answer_on() -> None:
    clock = ClockOffset()
    answer(clock, 0, 10, monotonic=70, wall=-50_000_000)
    assert clock.wall_ns == -50_000_000
    answer(clock, 1000, 400, monotonic=70, wall=2)
    assert clock.monotonic_ns == 70
    assert clock.wall_ns == 2


def test_answers_before_a_suspend_do_not_count() -> None:
    clock = ClockOffset()
    answer(clock, 0, 10, monotonic=0, wall=0)
    answer(clock, 1000, 400, monotonic=-9000, wall=0)
    assert clock.monotonic_ns == -9000
    assert clock.round_trip_ns == 400
    assert clock.wall_ns == 0
