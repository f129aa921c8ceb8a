"""Steps of chunks on the robot's clock, for any delay, order and cut."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from lerobot_robot_dora.chunks import Chunk, Steps
from lerobot_robot_dora.messages import MessageUnusable

SECOND = 1_000_000_000
DT = SECOND // 30
HOLD_AFTER = SECOND // 5


def chunk(observed: int, steps: int = 20, number: int = 0) -> Chunk:
    """Each step has its index as value."""
    return Chunk(
        ("pan.pos",), tuple((float(index),) for index in range(steps)), DT, observed, "act", number
    )


def value(steps: Steps, now: int) -> float | None:
    step = steps.due(now)
    return None if step is None else step.values[0]


def test_steps_follow_the_time_since_the_observation() -> None:
    steps = Steps(SECOND)
    assert value(steps, 0) is None
    assert steps.why_none(0) == "no chunk has come"
    steps.add(chunk(0), 0)
    assert [value(steps, number * DT) for number in range(20)] == [*range(20)]
    assert value(steps, 20 * DT) is None
    assert steps.why_none(20 * DT) == "the last chunk has ended; its 20 steps last 0.667 s"


def test_steps_that_passed_while_the_policy_computed_are_skipped() -> None:
    steps = Steps(SECOND)
    steps.add(chunk(0), 5 * DT + 1)
    assert value(steps, 5 * DT + 1) == 5


def test_a_newer_chunk_replaces_the_rest() -> None:
    steps = Steps(SECOND)
    steps.add(chunk(0), 0)
    steps.add(chunk(3 * DT), 4 * DT)
    assert value(steps, 4 * DT) == 1


def test_holds_after_a_time_without_chunks_and_goes_on() -> None:
    steps = Steps(HOLD_AFTER)
    steps.add(chunk(0), 0)
    assert value(steps, HOLD_AFTER) == 6
    later = HOLD_AFTER + 1
    assert value(steps, later) is None
    assert steps.why_none(later) == "no new chunk for 0.2 s"
    steps.add(chunk(later), later)
    assert value(steps, later) == 0


def test_an_old_chunk_after_a_cut_is_refused() -> None:
    steps = Steps(HOLD_AFTER)
    with pytest.raises(MessageUnusable) as old:
        steps.add(chunk(0), SECOND)
    assert str(old.value) == (
        "all 20 steps are past: the observation is 1 s old, and the steps last 0.667 s"
    )
    steps.add(chunk(SECOND), SECOND)
    with pytest.raises(MessageUnusable, match="older than the previous chunk's"):
        steps.add(chunk(SECOND - DT), SECOND + 1)
    assert value(steps, SECOND + 1) == 0


def test_a_chunk_of_another_clock_is_refused() -> None:
    with pytest.raises(
        MessageUnusable, match=r"is 2 s in the future; run this node on the machine of"
    ):
        Steps(HOLD_AFTER).add(chunk(3 * SECOND), SECOND)


@pytest.mark.parametrize(
    ("steps", "dt", "problem"),
    [
        ((), DT, "the chunk has no steps"),
        (((1.0,), (1.0, 2.0)), DT, "a step has 2 numbers, but there are 1 names"),
        (((float("nan"),),), DT, "a step has numbers that are not finite"),
        (((1.0,),), 0, "`dt` is 0 s; expected the seconds between two steps"),
    ],
)
def test_wrong_chunks(steps: tuple[tuple[float, ...], ...], dt: int, problem: str) -> None:
    with pytest.raises(MessageUnusable) as refused:
        Chunk(("pan.pos",), steps, dt, 0)
    assert str(refused.value) == problem


TIMES = st.integers(0, 3 * SECOND)
ARRIVALS = st.lists(
    st.tuples(TIMES, st.integers(-SECOND // 2, 2 * SECOND), st.integers(1, 40)), max_size=12
)
"""Time of the observation, delay of the chunk (below zero: of another clock), number of steps."""


@given(ARRIVALS, st.lists(TIMES, max_size=30), st.integers(1, SECOND))
def test_only_due_steps_of_the_newest_observation_are_executed(
    arrivals: list[tuple[int, int, int]], ticks: list[int], hold_after: int
) -> None:
    steps = Steps(hold_after)
    chunks = [
        (observed + delay, 0, chunk(observed, count, number))
        for number, (observed, delay, count) in enumerate(arrivals)
    ]
    moments = [(time, 1, None) for time in ticks]
    accepted: dict[int, int] = {}
    newest = -1
    for now, _, arrived in sorted((*chunks, *moments), key=lambda one: one[:2]):
        if arrived is not None:
            with contextlib.suppress(MessageUnusable):
                steps.add(arrived, now)
                accepted[arrived.number] = now
            continue
        if (step := steps.due(now)) is None:
            continue
        due = step.chunk.observed + step.index * DT
        assert due <= now < due + DT
        assert now - accepted[step.chunk.number] <= hold_after
        assert step.chunk.observed >= newest
        newest = step.chunk.observed


@given(ARRIVALS, TIMES)
def test_a_step_is_due_whenever_a_usable_chunk_has_come(
    arrivals: list[tuple[int, int, int]], now: int
) -> None:
    steps = Steps(10 * SECOND)
    usable = []
    for observed, delay, count in sorted(arrivals, key=lambda one: one[0] + one[1]):
        if observed + delay <= now:
            with contextlib.suppress(MessageUnusable):
                steps.add(one := chunk(observed, count), observed + delay)
                usable.append(one)
    newest = max((one.observed for one in usable), default=None)
    alive = [one for one in usable if one.observed == newest][-1:]
    expected = bool(alive) and now < alive[0].end
    assert (steps.due(now) is not None) == expected
