"""Pauses between the tries of a repair."""

from __future__ import annotations

from dora_coordinator.state.retry import Retry

LIMIT = 30.0


def test_the_pauses_grow_up_to_the_limit() -> None:
    retry, now, pauses = Retry(), 0.0, []
    for _ in range(8):
        pauses.append(retry.wait(LIMIT, now))
        now += pauses[-1]
        retry.tried(LIMIT, now)
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_repair_that_held_begins_anew() -> None:
    retry = Retry()
    for now in (0.0, 1.0, 3.0):
        retry.tried(LIMIT, now)
    assert retry.wait(LIMIT, 3.0 + 2 * LIMIT) == 0.0
    retry.tried(LIMIT, 3.0 + 2 * LIMIT)
    assert retry.wait(LIMIT, 3.0 + 2 * LIMIT) == 1.0
    retry.reset()
    assert retry.wait(LIMIT, 3.0 + 2 * LIMIT) == 0.0
