"""Polling a condition until a time limit."""

from __future__ import annotations

from dora_cli.polling import wait_until


def test_a_condition_is_polled_until_it_is_true() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), 60.0, every=0.0)


def test_a_condition_that_stays_false_is_given_up() -> None:
    calls: list[int] = []

    def never() -> bool:
        calls.append(1)
        return False

    assert not wait_until(never, 0.0, every=0.0)
    assert calls
