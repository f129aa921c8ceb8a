"""Action servers and clients: three services and two topics each."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import pyarrow as pa

from dora_ros2.cdr.writer import as_dictionary
from dora_ros2.connection import RosNode
from dora_ros2.errors import GoalError, MalformedMessage, NoReply
from dora_ros2.types import ActionType
from dora_ros2.zenoh.endpoints import REQUEST_SECONDS, ServiceClient, ServiceRequest, then
from dora_ros2.zenoh.tokens import SECOND, Attachment, Qos, absolute, stamp

Message: TypeAlias = pa.StructArray | pa.StructScalar | dict[str, Any]
KEEP_SECONDS = 10.0
"""Seconds for which a server keeps results, as rclpy does."""
RESULT_SECONDS = 300.0
"""Seconds for which nodes of dora wait for results, and keep them."""
MAX_GOALS = 8
"""Goals without a result of one client or server of dora."""
_STATUS_QOS = Qos(transient_local=True, depth=1)
_ID = slice(4, 20)
"""Place of the goal id in requests and in feedback."""
_logger = logging.getLogger(__name__)


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


ENDS = {state.name.lower(): state for state in GoalState if state.ended}
"""The states of ended goals by their names."""
_NEXT = {
    GoalState.ACCEPTED: {GoalState.EXECUTING, GoalState.CANCELING},
    GoalState.EXECUTING: {GoalState.CANCELING, GoalState.SUCCEEDED, GoalState.ABORTED},
    GoalState.CANCELING: {GoalState.CANCELED, GoalState.SUCCEEDED, GoalState.ABORTED},
}


class Goals:
    """The goals of a server; ended ones are kept for some seconds, so that results can be read."""

    def __init__(self, keep_seconds: float) -> None:
        self.goals: dict[bytes, ServerGoal] = {}
        self._keep_seconds = keep_seconds

    def accept(self, goal: ServerGoal, stamp_ns: int) -> None:
        """Add a goal. Raises GoalError."""
        if goal.id in self.goals:
            raise GoalError(f"goal {goal.id.hex()} exists already")
        goal.state, goal.stamp_ns = GoalState.ACCEPTED, stamp_ns
        self.goals[goal.id] = goal

    def move(self, goal_id: bytes, state: GoalState, now: float) -> None:
        """Change the state of a goal. Raises GoalError."""
        goal = self.goals.get(goal_id)
        if goal is None:
            raise GoalError(f"goal {goal_id.hex()} is unknown")
        if state not in _NEXT.get(goal.state, ()):
            before, after = goal.state.name.lower(), state.name.lower()
            raise GoalError(f"goal {goal_id.hex()} is {before} and cannot become {after}")
        goal.state = state
        goal.ended_at = now if state.ended else None

    def to_cancel(self, goal_id: bytes, stamp_ns: int) -> tuple[CancelCode, list[ServerGoal]]:
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

    def expire(self, now: float) -> None:
        """Remove goals that ended long ago."""
        for goal in list(self.goals.values()):
            if goal.ended_at is not None and now - goal.ended_at >= self._keep_seconds:
                goal.state = GoalState.UNKNOWN
                del self.goals[goal.id]


class ServerGoal:
    """A goal that was sent to our server. All methods may be called from any thread.

    `state` is UNKNOWN before it is accepted and after its result has expired; `stamp_ns` is when it
    was accepted, `ended_at` on the clock of the caller.
    """

    def __init__(self, server: ActionServer, request: ServiceRequest) -> None:
        self.id = request.payload[_ID]
        self.goal = request.value.field("goal")
        self.key = str(uuid.UUID(bytes=self.id))
        self.server = server
        self.state = GoalState.UNKNOWN
        self.stamp_ns = 0
        self.ended_at: float | None = None
        self.result: bytes | bytearray = b""
        """The encoded response to requests for the result, once the goal ended."""
        self.waiting: list[ServiceRequest] = []
        """Requests for the result."""
        self.fetched = threading.Event()
        """Set once a client has received the result."""
        self._request = request
        self._answered = False

    def accept(self) -> None:
        """Accept the goal, which is then executing. Raises GoalError."""
        stamp_ns = time.time_ns()
        with self.server.lock:
            if self._answered:
                raise GoalError(f"goal {self.id.hex()} was answered already")
            self.server.goals.accept(self, stamp_ns)
            self._answered = True
        self._request.answer({"accepted": True, "stamp": stamp(stamp_ns)})
        self.server.publish_status()
        with self.server.lock:
            if self.state is GoalState.ACCEPTED:  # otherwise it was canceled meanwhile
                self.server.goals.move(self.id, GoalState.EXECUTING, time.monotonic())
        self.server.publish_status()

    def reject(self) -> None:
        """Reject the goal."""
        self._answered = True
        self._request.answer({"accepted": False})

    def feedback(self, feedback: Message) -> None:
        """Publish feedback. Raises MalformedMessage, SessionError."""
        value = {"goal_id": _uuid(self.id), "feedback": as_dictionary(feedback)}
        self.server.feedback.publish(self.server.type.feedback_message.encode(value))

    def finish(self, state: GoalState, result: Message | None = None) -> None:
        """End the goal as SUCCEEDED, CANCELED or ABORTED; an absent result has default values.

        Raises GoalError, MalformedMessage.
        """
        if not state.ended:
            raise GoalError(f"{state.name.lower()} is not the end of a goal")
        value = as_dictionary({} if result is None else result)
        response = self.server.type.get_result.response.encode({"status": state, "result": value})
        with self.server.lock:
            self.server.goals.move(self.id, state, time.monotonic())
            self.result = response
            waiting, self.waiting = self.waiting, []
        for request in waiting:
            request.reply(response)
            self.fetched.set()
        self.server.publish_status()


class ActionServer:
    """Serves an action: `on_goal` is called with each goal, and accepts or rejects it.

    `on_cancel` is called with a goal that a client wants to cancel and returns at once whether it
    may (default: always); the goal is then CANCELING until it is finished.
    """

    def __init__(
        self,
        node: RosNode,
        name: str,
        type: ActionType,
        on_goal: Callable[[ServerGoal], None],
        *,
        on_cancel: Callable[[ServerGoal], bool] = lambda _: True,
        keep_results: float = KEEP_SECONDS,
    ) -> None:
        """Announce the server. Raises InvalidName, SessionError."""
        self.name = absolute(name, node.namespace, node.name)
        self.type = type
        self.goals = Goals(keep_results)
        self.lock = threading.RLock()
        self._on_goal = on_goal
        self._on_cancel = on_cancel
        base = f"{self.name}/_action"
        self._status = node.publisher(f"{base}/status", type.status, _STATUS_QOS)
        self.feedback = node.publisher(f"{base}/feedback", type.feedback_message)
        served = {
            "cancel_goal": (type.cancel_goal, self._cancel_requested),
            "get_result": (type.get_result, self._result_requested),
            "send_goal": (type.send_goal, self._goal_requested),
        }
        self._servers = [
            node.service_server(f"{base}/{word}", service, answer)
            for word, (service, answer) in served.items()
        ]

    def close(self) -> None:
        """Withdraw the action; requests without a reply end."""
        for endpoint in (*self._servers, self.feedback, self._status):
            endpoint.close()

    def running(self) -> dict[str, ServerGoal]:
        """Return the accepted goals that have not ended, by the texts of their UUIDs."""
        with self.lock:
            goals = self.goals.goals.values()
            return {goal.key: goal for goal in goals if not goal.state.ended}

    def unfetched(self, key: str) -> ServerGoal | None:
        """Return an ended goal whose result no client has received, by the text of its UUID."""
        with self.lock:
            for goal in self.goals.goals.values():
                if goal.key == key and goal.state.ended and not goal.fetched.is_set():
                    return goal
        return None

    def publish_status(self) -> None:
        """Publish the states of all goals."""
        with self.lock:
            self.goals.expire(time.monotonic())
            statuses = [
                {"goal_info": _info(goal.id, goal.stamp_ns), "status": goal.state}
                for goal in self.goals.goals.values()
            ]
            if not self._status.closed:
                self._status.publish(self.type.status.encode({"status_list": statuses}))

    def _goal_requested(self, request: ServiceRequest) -> None:
        goal = ServerGoal(self, request)
        if goal.id in self.goals.goals:
            goal.reject()
        else:
            self._on_goal(goal)

    def _cancel_requested(self, request: ServiceRequest) -> None:
        asked = request.value[0].as_py()["goal_info"]
        until = asked["stamp"]["sec"] * SECOND + asked["stamp"]["nanosec"]
        with self.lock:
            code, goals = self.goals.to_cancel(bytes(asked["goal_id"]["uuid"]), until)
        accepted = [goal for goal in goals if self._may_cancel(goal)]
        if goals and not accepted:
            code = CancelCode.REJECTED
        canceling = [_info(goal.id, goal.stamp_ns) for goal in accepted]
        request.answer({"return_code": code, "goals_canceling": canceling})
        self.publish_status()

    def _may_cancel(self, goal: ServerGoal) -> bool:
        with self.lock:  # an end by another thread follows the change of state
            if goal.state is GoalState.CANCELING:
                return True
            if goal.state.ended or not self._on_cancel(goal):
                return False
            self.goals.move(goal.id, GoalState.CANCELING, time.monotonic())
        return True

    def _result_requested(self, request: ServiceRequest) -> None:
        goal_id = bytes(request.value[0].as_py()["goal_id"]["uuid"])
        with self.lock:
            self.goals.expire(time.monotonic())
            goal = self.goals.goals.get(goal_id)
            if goal is not None and not goal.state.ended:
                goal.waiting.append(request)
                return
        if goal is None:
            response = self.type.get_result.response
            request.reply(response.encode({"status": GoalState.UNKNOWN}))
        else:
            request.reply(goal.result)
            goal.fetched.set()


@dataclass(frozen=True)
class GoalResult:
    """End of a goal: SUCCEEDED, CANCELED or ABORTED, and its result."""

    state: GoalState
    result: pa.StructArray


class ActionClient:
    """Sends goals to the server of an action."""

    def __init__(self, node: RosNode, name: str, type: ActionType) -> None:
        """Announce the client. Raises InvalidName, SessionError."""
        self.name = absolute(name, node.namespace, node.name)
        self.type = type
        self._on_feedback: dict[bytes, Callable[[pa.StructArray], None]] = {}
        base = f"{self.name}/_action"
        self._send: ServiceClient = node.service_client(f"{base}/send_goal", type.send_goal)
        self._get: ServiceClient = node.service_client(f"{base}/get_result", type.get_result)
        self._cancel: ServiceClient = node.service_client(f"{base}/cancel_goal", type.cancel_goal)
        self._feedback = node.subscription(
            f"{base}/feedback", type.feedback_message, self._feedback_received
        )

    @property
    def available(self) -> bool:
        """Whether a server with this name and type is known."""
        return all(client.available for client in (self._send, self._get, self._cancel))

    @property
    def mismatch(self) -> str | None:
        """Why none of the known servers fits; None if one does or none is known."""
        return self._send.mismatch or self._get.mismatch

    def wait_for_server(self, seconds: float) -> bool:
        """Wait until a server is available; return whether it is. Not from a callback."""
        return self._send.node.connection.wait_for(lambda _: self.available, seconds)

    def send_goal(
        self,
        goal: Message,
        *,
        goal_id: bytes,
        on_feedback: Callable[[pa.StructArray], None] | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Future[None]:
        """Send a goal; return a future that completes when the server has accepted it.

        It fails with GoalError if the server rejects the goal, and with NoReply. Raises
        MalformedMessage, SessionError.
        """
        request = {"goal_id": _uuid(goal_id), "goal": as_dictionary(goal)}
        if on_feedback is not None:
            self._on_feedback[goal_id] = on_feedback

        def answered(answer: pa.StructArray) -> None:
            if not answer[0].as_py()["accepted"]:
                raise GoalError(f"{self.name}: the server rejected the goal")

        def forget_failed(done: Future[None]) -> None:
            if done.cancelled() or done.exception() is not None:
                self._on_feedback.pop(goal_id, None)

        future = then(self._send.ask(request, timeout=timeout), answered)
        future.add_done_callback(forget_failed)
        return future

    def result(self, goal_id: bytes, *, timeout: float | None = None) -> Future[GoalResult]:
        """Return a future of the result of an accepted goal; any number may wait.

        It fails with NoReply: after `timeout` seconds (None: never), if the server disappears, or
        if it does not know the goal.
        """

        def answered(answer: pa.StructArray) -> GoalResult:
            self._on_feedback.pop(goal_id, None)
            status = answer.field("status")[0].as_py()
            if status == GoalState.UNKNOWN:
                raise NoReply(
                    f"{self.name}: the server has no goal {goal_id.hex()}; it keeps results"
                    " for a limited time"
                )
            if status not in ENDS.values():
                raise NoReply(f"{self.name}: a result with status {status}, which is not an end")
            return GoalResult(GoalState(status), answer.field("result"))

        return then(self._get.ask({"goal_id": _uuid(goal_id)}, timeout=timeout), answered)

    def cancel(self, goal_id: bytes, *, timeout: float = REQUEST_SECONDS) -> Future[CancelCode]:
        """Request to cancel a goal, or all of them: `ANY_GOAL`."""

        def answered(answer: pa.StructArray) -> CancelCode:
            try:
                return CancelCode(answer[0].as_py()["return_code"])
            except ValueError as error:
                raise NoReply(f"{self.name}: unknown answer to a cancel request: {error}") from None

        request = {"goal_info": _info(goal_id, 0)}
        return then(self._cancel.ask(request, timeout=timeout), answered)

    def close(self) -> None:
        """Withdraw the client; requests that wait fail."""
        for endpoint in (self._feedback, self._send, self._get, self._cancel):
            endpoint.close()
        self._on_feedback.clear()

    def _feedback_received(self, payload: bytes, _: Attachment | None) -> None:
        on_feedback = self._on_feedback.get(payload[_ID])
        if on_feedback is not None:
            try:
                feedback = self.type.feedback_message.decode(payload).field("feedback")
            except MalformedMessage as error:
                _logger.warning("%s: ignored feedback: %s", self.name, error)
                return
            on_feedback(feedback)


def _info(goal_id: bytes, stamp_ns: int) -> dict[str, Any]:
    return {"goal_id": _uuid(goal_id), "stamp": stamp(stamp_ns)}


def _uuid(goal_id: bytes) -> dict[str, Any]:
    return {"uuid": list(goal_id)}
