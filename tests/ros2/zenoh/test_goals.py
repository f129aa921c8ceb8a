"""The states of goals."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, strategies as st

from dora_ros2.errors import GoalError
from dora_ros2.types import Types
from dora_ros2.zenoh.actions import ANY_GOAL, CancelCode, Goals, GoalState, ServerGoal

FIBONACCI = Types().action("example_interfaces/action/Fibonacci")
ONE, TWO = bytes([1] * 16), bytes([2] * 16)


def made(goal_id: bytes) -> ServerGoal:
    value = FIBONACCI.send_goal.request.decode(bytes([0, 1, 0, 0, *goal_id, *bytes(4)]))
    payload = bytes(4) + goal_id
    request: Any = SimpleNamespace(payload=payload, value=value)
    server: Any = None
    return ServerGoal(server, request)


def test_a_goal_may_be_canceled_while_it_is_being_accepted() -> None:
    goal, goals = made(ONE), Goals(10)

    def publish_status() -> None:
        if goal.state is GoalState.ACCEPTED:
            goals.move(ONE, GoalState.CANCELING, 0)

    server: Any = SimpleNamespace(lock=nullcontext(), goals=goals, publish_status=publish_status)
    request: Any = SimpleNamespace(payload=bytes(4) + ONE, value=goal._request.value)
    request.answer = lambda _: None
    goal = ServerGoal(server, request)
    goal.accept()
    assert goal.state is GoalState.CANCELING


def test_a_goal_is_kept_for_some_time_after_its_end() -> None:
    goals = Goals(10)
    goals.accept(made(ONE), 5)
    with pytest.raises(GoalError, match="exists already"):
        goals.accept(made(ONE), 6)
    goals.move(ONE, GoalState.EXECUTING, 0)
    goals.move(ONE, GoalState.SUCCEEDED, 1)
    goals.expire(10.9)
    [goal] = goals.goals.values()
    goals.expire(11)
    assert (goals.goals, goal.state) == ({}, GoalState.UNKNOWN)
    with pytest.raises(GoalError, match="is unknown"):
        goals.move(ONE, GoalState.ABORTED, 12)


def test_wrong_changes_are_refused() -> None:
    goals = Goals(10)
    goals.accept(made(ONE), 5)
    with pytest.raises(GoalError, match="is accepted and cannot become canceled"):
        goals.move(ONE, GoalState.CANCELED, 0)
    goals.move(ONE, GoalState.CANCELING, 0)
    goals.move(ONE, GoalState.CANCELED, 0)
    with pytest.raises(GoalError, match="is canceled and cannot become executing"):
        goals.move(ONE, GoalState.EXECUTING, 0)


def test_which_goals_a_cancel_request_means() -> None:
    goals = Goals(10)
    first, second, third = made(ONE), made(TWO), made(bytes([3] * 16))
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
    goals = Goals(5)
    for now, (goal_id, state) in enumerate(changes):
        before = goals.goals.get(goal_id)
        ended = before is not None and before.state.ended
        try:
            if state is GoalState.ACCEPTED:
                goals.accept(made(goal_id), now)
            else:
                goals.move(goal_id, state, now)
        except GoalError:
            continue
        finally:
            goals.expire(now)
        assert not ended
    assert all((goal.ended_at is not None) == goal.state.ended for goal in goals.goals.values())
