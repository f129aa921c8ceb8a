from __future__ import annotations

from itertools import islice

from dora_daemon.agent.coordinator_link import waits


def test_waits_double_up_to_the_longest_and_stay_there() -> None:
    assert list(islice(waits(lambda: 0.5), 8)) == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]


def test_waits_are_spread_by_a_quarter() -> None:
    assert next(waits(lambda: 0.0)) == 0.375
    assert next(waits(lambda: 1.0)) == 0.625
