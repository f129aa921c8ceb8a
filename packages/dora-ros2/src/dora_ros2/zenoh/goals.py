"""State machine of the goals of an action server (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from dora_ros2.errors import GoalError

ANY_GOAL = bytes(16)
"""Goal id of a cancel request that names no goal."""


class GoalState(IntEnum):
    """State of a goal, as `action_msgs/msg/GoalStatus` numbers it."""

    UNKNOWN = 0
    ACCEPTED = 1
    EXECUTING = 2
    CANCELING = 3
    SUCCEEDED = 4
    CANCELED = 5
    ABORTED = 6

    @property
    def ended(self) -> bool:
        return self >= GoalState.SUCCEEDED


class CancelCode(IntEnum):
    """Answer to a cancel request, as `action_msgs/srv/CancelGoal` numbers it."""

    ACCEPTED = 0
    REJECTED = 1
    UNKNOWN_GOAL = 2
    GOAL_ENDED = 3


_NEXT = {
    GoalState.ACCEPTED: {GoalState.EXECUTING, GoalState.CANCELING},
    GoalState.EXECUTING: {GoalState.CANCELING, GoalState.SUCCEEDED, GoalState.ABORTED},
    GoalState.CANCELING: {GoalState.CANCELED, GoalState.SUCCEEDED, GoalState.ABORTED},
}


@dataclass
class Goal:
    """One goal; `stamp_ns` is when it was accepted, `ended_at` on the clock of the caller."""

    id: bytes
    stamp_ns: int
    state: GoalState = GoalState.ACCEPTED
    ended_at: float | None = None
    result: bytes | bytearray = b""
    """The encoded response to requests for the result, once the goal ended."""


class Goals:
    """The goals of a server; ended ones are kept for some seconds, so that results can be read."""

    def __init__(self, keep_seconds: float) -> None:
        self.goals: dict[bytes, Goal] = {}
        self._keep_seconds = keep_seconds

    def accept(self, goal_id: bytes, stamp_ns: int) -> Goal:
        """Add a goal. Raises GoalError."""
        if goal_id in self.goals:
            raise GoalError(f"goal {goal_id.hex()} exists already")
        goal = self.goals[goal_id] = Goal(goal_id, stamp_ns)
        return goal

    def move(self, goal_id: bytes, state: GoalState, now: float) -> Goal:
        """Change the state of a goal. Raises GoalError."""
        goal = self.goals.get(goal_id)
        if goal is None:
            raise GoalError(f"goal {goal_id.hex()} is unknown")
        if state not in _NEXT.get(goal.state, ()):
            before, after = goal.state.name.lower(), state.name.lower()
            raise GoalError(f"goal {goal_id.hex()} is {before} and cannot become {after}")
        goal.state = state
        goal.ended_at = now if state.ended else None
        return goal

    def to_cancel(self, goal_id: bytes, stamp_ns: int) -> tuple[CancelCode, list[Goal]]:
        """Return the goals that a cancel request means.

        Without id and time: all; with a time, also those that were accepted until then.
        """
        named = self.goals.get(goal_id)
        if goal_id != ANY_GOAL and not stamp_ns:
            if named is None:
                return CancelCode.UNKNOWN_GOAL, []
            if named.state.ended:
                return CancelCode.GOAL_ENDED, []
        everything = goal_id == ANY_GOAL and not stamp_ns
        return CancelCode.ACCEPTED, [
            goal
            for goal in self.goals.values()
            if not goal.state.ended
            and (everything or goal is named or (stamp_ns and goal.stamp_ns <= stamp_ns))
        ]

    def expire(self, now: float) -> list[bytes]:
        """Forget goals that ended long ago; return their ids."""
        expired = [
            goal.id
            for goal in self.goals.values()
            if goal.ended_at is not None and now - goal.ended_at >= self._keep_seconds
        ]
        for goal_id in expired:
            del self.goals[goal_id]
        return expired
