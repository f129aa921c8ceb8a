"""Restart policies."""

from __future__ import annotations

from hypothesis import given, strategies as st

from dora_config.dataflow.resolved import RestartSettings
from dora_config.retry import Retry
from dora_daemon.runner.machine.restart import GiveUp, restart_delay


def delays(settings: RestartSettings, exits: list[float]) -> list[float | str]:
    """Return the decisions for failures at these times."""
    retry = Retry()
    decided: list[float | str] = []
    for now in exits:
        match restart_delay(settings, retry, failed=True, inputs_ended=False, now=now):
            case float() as delay:
                decided.append(delay)
            case GiveUp(reason=reason):
                decided.append(reason)
            case None:
                decided.append("ended")
    return decided


def end(
    settings: RestartSettings, *, failed: bool, inputs_ended: bool = False
) -> float | GiveUp | None:
    """Return the decision for the first end of a process."""
    return restart_delay(settings, Retry(), failed=failed, inputs_ended=inputs_ended, now=0.0)


def test_policy_never() -> None:
    assert delays(RestartSettings(), [0.0]) == ["ended"]


def test_on_failure_restarts_failures_only() -> None:
    settings = RestartSettings(policy="on-failure")
    assert delays(settings, [0.0, 1.0]) == [0.0, 0.0]
    assert end(settings, failed=False) is None


def test_always_restarts_success_too_but_not_once_the_inputs_ended() -> None:
    settings = RestartSettings(policy="always")
    assert end(settings, failed=False) == 0.0
    assert end(settings, failed=False, inputs_ended=True) is None
    assert end(settings, failed=True, inputs_ended=True) is None


def test_the_delay_doubles_up_to_its_cap() -> None:
    settings = RestartSettings(policy="on-failure", delay=0.5, max_delay=3.0)
    assert delays(settings, [0.0] * 5) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_the_exponent_is_capped_at_16() -> None:
    settings = RestartSettings(policy="on-failure", delay=1.0)
    assert delays(settings, [0.0] * 20)[16:] == [65536.0] * 4


def test_too_many_restarts_give_up_with_the_number() -> None:
    settings = RestartSettings(policy="always", max_restarts=2)
    assert delays(settings, [0.0] * 3) == [0.0, 0.0, "max restarts (2) exceeded"]


def test_the_window_starts_the_count_again() -> None:
    settings = RestartSettings(policy="always", max_restarts=2, window=60.0, delay=1.0)
    assert delays(settings, [0.0, 10.0, 60.1, 61.0]) == [1.0, 2.0, 1.0, 2.0]
    assert delays(settings, [0.0, 10.0, 60.0]) == [1.0, 2.0, "max restarts (2) exceeded"]


@given(
    delay=st.floats(0, 1e6),
    cap=st.none() | st.floats(0, 1e6),
    most=st.integers(1, 30),
    times=st.lists(st.floats(0, 1e6), min_size=31, max_size=40).map(sorted),
)
def test_never_more_restarts_than_allowed_nor_longer_than_the_cap(
    delay: float, cap: float | None, most: int, times: list[float]
) -> None:
    settings = RestartSettings(policy="on-failure", max_restarts=most, delay=delay, max_delay=cap)
    decided = delays(settings, times)
    waits = [d for d in decided if isinstance(d, float)]
    assert len(waits) == most
    assert all(isinstance(d, str) for d in decided[most:])
    assert waits == sorted(waits)
    if cap is not None:
        assert all(wait <= cap for wait in waits)
