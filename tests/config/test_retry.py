"""Delays of retries, and when they end, by the numbers of a policy."""

from __future__ import annotations

import math

from hypothesis import given, strategies as st

from dora_config.retry import Retry, RetryPolicy

LIMIT = 30.0
REPAIRS = RetryPolicy(longest=LIMIT, stable=2 * LIMIT)


def test_the_delays_grow_up_to_the_longest() -> None:
    retry, now, delays = Retry(), 0.0, []
    for _ in range(8):
        delays.append(retry.wait(now))
        now += delays[-1]
        retry.failed(REPAIRS, now)
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_what_held_for_long_is_counted_anew() -> None:
    retry = Retry()
    for now in (0.0, 1.0, 3.0):
        retry.failed(REPAIRS, now)
    later = 3.0 + 2 * LIMIT
    assert retry.wait(later) == 0.0
    assert retry.failed(REPAIRS, later) == 1.0
    assert retry.failed(REPAIRS, later + 1.0, held=2 * LIMIT) == 1.0
    retry.reset()
    assert retry.wait(later) == 0.0


def test_after_the_limit_it_is_given_up_until_the_window_has_passed() -> None:
    retry, policy = Retry(), RetryPolicy(limit=2, window=60.0)
    found = [retry.failed(policy, now) for now in (0.0, 10.0, 60.0, 60.1)]
    assert found == [1.0, 2.0, math.inf, 1.0]


@given(
    policy=st.builds(
        RetryPolicy,
        st.floats(0, 100),
        st.none() | st.floats(0, 100),
        st.integers(0, 5),
        st.none() | st.floats(0, 100),
        st.none() | st.floats(0, 100),
    ),
    times=st.lists(st.floats(0, 1000), max_size=30).map(sorted),
)
def test_no_window_has_more_tries_than_the_limit(policy: RetryPolicy, times: list[float]) -> None:
    retry = Retry()
    done = [(now, retry.failed(policy, now)) for now in times]
    tries = [now for now, delay in done if delay < math.inf]
    if policy.longest is not None:
        assert all(delay <= policy.longest for _, delay in done if delay < math.inf)
    if policy.limit and policy.window is None and policy.stable is None:
        assert len(tries) <= policy.limit
    assert len(tries) == len(times) or policy.limit
