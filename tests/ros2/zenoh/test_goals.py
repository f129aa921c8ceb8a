"""The states of goals."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dora_ros2.errors import GoalError
from dora_ros2.zenoh.actions import ANY_GOAL, CancelCode, Goal, Goals, GoalState

ONE, TWO = bytes([1] * 16), bytes([2] * 16)


def test_a_goal_is_kept_for_some_time_after_its_end() -> None:
    goals: Goals[Goal] = Goals(10)
    goals.accept(Goal(ONE), 5)
    with pytest.raises(GoalError, match="exists already"):
        goals.accept(Goal(ONE), 6)
    goals.move(ONE, GoalState.EXECUTING, 0)
    goals.move(ONE, GoalState.SUCCEEDED, 1)
    goals.expire(10.9)
    [goal] = goals.goals.values()
    goals.expire(11)
    assert (goals.goals, goal.state) == ({}, GoalState.UNKNOWN)
    with pytest.raises(GoalError, match="is unknown"):
        goals.move(ONE, GoalState.ABORTED, 12)


def test_wrong_changes_are_refused() -> None:
    goals: Goals[Goal] = Goals(10)
    goals.accept(Goal(ONE), 5)
    with pytest.raises(GoalError, match="is accepted and cannot become canceled"):
        goals.move(ONE, GoalState.CANCELED, 0)
    goals.move(ONE, GoalState.CANCELING, 0)
    goals.move(ONE, GoalState.CANCELED, 0)
    with pytest.raises(GoalError, match="is canceled and cannot become executing"):
        goals.move(ONE, GoalState.EXECUTING, 0)


def test_which_goals_a_cancel_request_means() -> None:
    goals: Goals[Goal] = Goals(10)
    first, second, third = Goal(ONE), Goal(TWO), Goal(bytes([3] * 16))
    for goal, stamp_ns in ((first, 100), (second, 200), (third, 300)):
        goals.accept(goal, stamp_ns)
    assert goals.to_cancel(ANY_GOAL, 0) == (CancelCode.ACCEPTED, [first, second, third])
    assert goals.to_cancel(ANY_GOAL, 200) == (CancelCode.ACCEPTED, [first, second])
    assert goals.to_cancel(TWO, 0) == (CancelCode.ACCEPTED, [second])
    assert goals.to_cancel(third.id, 100) == (CancelCode.ACCEPTED, [first, third])
    assert goals.to_cancel(bytes([9] * 16), 0) == (CancelCode.UNKNOWN_GOAL, [])
    goals.move(ONE, GoalState.CANCELING, 0)
    goals.move(ONE, GoalState.CANCELED, 0)
    assert goals.to_cancel(ONE, 0) == (CancelCode.GOAL_ENDED, [])
    assert goals.to_cancel(ANY_GOAL, 100) == (CancelCode.ACCEPTED, [])


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.sampled_from(list(GoalState)))))
def test_any_order_of_changes(changes: list[tuple[bytes, GoalState]]) -> None:
    goals: Goals[Goal] = Goals(5)
    for now, (goal_id, state) in enumerate(changes):
        before = goals.goals.get(goal_id)
        ended = before is not None and before.state.ended
        try:
            if state is GoalState.ACCEPTED:
                goals.accept(Goal(goal_id), now)
            else:
                goals.move(goal_id, state, now)
        except GoalError:
            continue
        finally:
            goals.expire(now)
        assert not ended
    assert all((goal.ended_at is not None) == goal.state.ended for goal in goals.goals.values())
