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
from typing import Any, Generic, TypeAlias, TypeVar

import pyarrow as pa

from dora_ros2.cdr.writer import as_dictionary
from dora_ros2.errors import GoalError, MalformedMessage, NoReply
from dora_ros2.types import ActionType
from dora_ros2.zenoh.node import REQUEST_SECONDS, Node, Request, then
from dora_ros2.zenoh.tokens import Attachment, Qos, absolute

Message: TypeAlias = pa.StructArray | pa.StructScalar | dict[str, Any]
KEEP_SECONDS = 10.0
"""How long a server keeps results, as rclpy does."""
RESULT_SECONDS = 300.0
"""How long nodes of dora wait for results, and keep them."""
MAX_GOALS = 8
"""Goals without a result of one client or server of dora."""
_STATUS_QOS = Qos(transient_local=True, depth=1)
_ID = slice(4, 20)
"""Place of the goal id in requests and in feedback."""
_SECOND = 1_000_000_000
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


@dataclass(eq=False)
class Goal:
    """One goal; `stamp_ns` is when it was accepted, `ended_at` on the clock of the caller.

    `state` is UNKNOWN before it is accepted and after its result has expired.
    """

    id: bytes
    stamp_ns: int = 0
    state: GoalState = GoalState.UNKNOWN
    ended_at: float | None = None
    result: bytes | bytearray = b""
    """The encoded response to requests for the result, once the goal ended."""


_G = TypeVar("_G", bound=Goal)


class Goals(Generic[_G]):
    """The goals of a server; ended ones are kept for some seconds, so that results can be read."""

    def __init__(self, keep_seconds: float) -> None:
        self.goals: dict[bytes, _G] = {}
        self._keep_seconds = keep_seconds

    def accept(self, goal: _G, stamp_ns: int) -> None:
        """Add a goal. Raises GoalError."""
        if goal.id in self.goals:
            raise GoalError(f"goal {goal.id.hex()} exists already")
        goal.state, goal.stamp_ns = GoalState.ACCEPTED, stamp_ns
        self.goals[goal.id] = goal

    def move(self, goal_id: bytes, state: GoalState, now: float) -> _G:
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

    def to_cancel(self, goal_id: bytes, stamp_ns: int) -> tuple[CancelCode, list[_G]]:
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
        """Forget goals that ended long ago."""
        for goal in list(self.goals.values()):
            if goal.ended_at is not None and now - goal.ended_at >= self._keep_seconds:
                goal.state = GoalState.UNKNOWN
                del self.goals[goal.id]


class ServerGoal(Goal):
    """A goal that was sent to our server. All methods may be called from any thread."""

    def __init__(self, server: ActionServer, request: Request) -> None:
        super().__init__(request.payload[_ID])
        self.goal = request.value.field("goal")
        self.key = str(uuid.UUID(bytes=self.id))
        self.server = server
        self._request = request

    def accept(self) -> None:
        """Accept the goal, which is then executing. Raises GoalError."""
        self.server._accept(self, self._request)

    def reject(self) -> None:
        """Reject the goal."""
        self.server._answer(self._request, accepted=False, stamp_ns=0)

    def feedback(self, feedback: Message) -> None:
        """Publish feedback. Raises MalformedMessage, SessionError."""
        self.server._publish_feedback(self.id, feedback)

    def finish(self, state: GoalState, result: Message | None = None) -> None:
        """End the goal as SUCCEEDED, CANCELED or ABORTED; an absent result has default values.

        Raises GoalError, MalformedMessage.
        """
        self.server._finish(self.id, state, result)


class ActionServer:
    """Serves an action: `on_goal` is called with each goal, and accepts or rejects it.

    `on_cancel` is called with a goal that a client wants to cancel and returns whether it may
    (default: always); the goal is then CANCELING until it is finished.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        type: ActionType,
        on_goal: Callable[[ServerGoal], None],
        *,
        on_cancel: Callable[[ServerGoal], bool] | None = None,
        keep_results: float = KEEP_SECONDS,
    ) -> None:
        """Announce the server. Raises InvalidName, SessionError."""
        self.name = absolute(name, node.namespace, node.name)
        self.type = type
        self.goals: Goals[ServerGoal] = Goals(keep_results)
        self._on_goal = on_goal
        self._on_cancel = on_cancel
        self._lock = threading.RLock()
        self._offered: dict[bytes, ServerGoal] = {}
        self._waiting: dict[bytes, list[Request]] = {}
        base = f"{self.name}/_action"
        self._status = node.publisher(f"{base}/status", type.status, _STATUS_QOS)
        self._feedback = node.publisher(f"{base}/feedback", type.feedback_message)
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
        for endpoint in (*self._servers, self._feedback, self._status):
            endpoint.close()

    def running(self) -> dict[str, ServerGoal]:
        """Return the accepted goals that have not ended, by the texts of their UUIDs."""
        with self._lock:
            goals = self.goals.goals.values()
            return {goal.key: goal for goal in goals if not goal.state.ended}

    def _goal_requested(self, request: Request) -> None:
        offered = ServerGoal(self, request)
        with self._lock:
            known = offered.id in self.goals.goals or offered.id in self._offered
            if not known:
                self._offered[offered.id] = offered
        if known:
            offered.reject()
        else:
            self._on_goal(offered)

    def _accept(self, goal: ServerGoal, request: Request) -> None:
        stamp_ns = time.time_ns()
        with self._lock:
            if self._offered.pop(goal.id, None) is None:
                raise GoalError(f"goal {goal.id.hex()} was answered already")
            self.goals.accept(goal, stamp_ns)
        self._answer(request, accepted=True, stamp_ns=stamp_ns)
        self._publish_status()
        with self._lock:
            self.goals.move(goal.id, GoalState.EXECUTING, time.monotonic())
        self._publish_status()

    def _answer(self, request: Request, *, accepted: bool, stamp_ns: int) -> None:
        with self._lock:
            self._offered.pop(request.payload[_ID], None)
        request.answer({"accepted": accepted, "stamp": _stamp(stamp_ns)})

    def _cancel_requested(self, request: Request) -> None:
        asked = request.value[0].as_py()["goal_info"]
        stamp = asked["stamp"]
        with self._lock:
            code, goals = self.goals.to_cancel(
                bytes(asked["goal_id"]["uuid"]), stamp["sec"] * _SECOND + stamp["nanosec"]
            )
        accepted = [goal for goal in goals if self._may_cancel(goal)]
        if goals and not accepted:
            code = CancelCode.REJECTED
        canceling = [_info(goal) for goal in accepted]
        request.answer({"return_code": code, "goals_canceling": canceling})
        self._publish_status()

    def _may_cancel(self, goal: ServerGoal) -> bool:
        if goal.state is GoalState.CANCELING:
            return True
        if self._on_cancel is not None and not self._on_cancel(goal):
            return False
        with self._lock:
            if goal.state.ended:
                return False
            self.goals.move(goal.id, GoalState.CANCELING, time.monotonic())
        return True

    def _result_requested(self, request: Request) -> None:
        goal_id = bytes(request.value[0].as_py()["goal_id"]["uuid"])
        with self._lock:
            self.goals.expire(time.monotonic())
            goal = self.goals.goals.get(goal_id)
            if goal is not None and not goal.state.ended:
                self._waiting.setdefault(goal_id, []).append(request)
                return
        response = self.type.get_result.response
        request.reply(goal.result if goal else response.encode({"status": GoalState.UNKNOWN}))

    def _finish(self, goal_id: bytes, state: GoalState, result: Message | None) -> None:
        if not state.ended:
            raise GoalError(f"{state.name.lower()} is not the end of a goal")
        value = as_dictionary({} if result is None else result)
        response = self.type.get_result.response.encode({"status": state, "result": value})
        with self._lock:
            self.goals.move(goal_id, state, time.monotonic()).result = response
            waiting = self._waiting.pop(goal_id, [])
        for request in waiting:
            request.reply(response)
        self._publish_status()

    def _publish_feedback(self, goal_id: bytes, feedback: Message) -> None:
        value = {"goal_id": _uuid(goal_id), "feedback": as_dictionary(feedback)}
        self._feedback.publish(self.type.feedback_message.encode(value))

    def _publish_status(self) -> None:
        with self._lock:
            self.goals.expire(time.monotonic())
            statuses = [
                {"goal_info": _info(goal), "status": goal.state}
                for goal in self.goals.goals.values()
            ]
            if not self._status.closed:
                self._status.publish(self.type.status.encode({"status_list": statuses}))


@dataclass(frozen=True)
class Result:
    """How a goal ended: SUCCEEDED, CANCELED or ABORTED, and its result."""

    state: GoalState
    result: pa.StructArray


class ClientGoal:
    """A goal that a server accepted."""

    def __init__(self, client: ActionClient, goal_id: bytes) -> None:
        self.id = goal_id
        self._client = client

    def result(self, *, timeout: float | None = None) -> Future[Result]:
        """Return a future of the result; any number may wait.

        It fails with NoReply: after `timeout` seconds (None: never), if the server disappears, or
        if it does not know the goal.
        """
        return self._client._result(self.id, timeout)

    def cancel(self, *, timeout: float = REQUEST_SECONDS) -> Future[CancelCode]:
        """Ask the server to cancel the goal; the future fails with NoReply."""
        return self._client.cancel(self.id, timeout=timeout)


class ActionClient:
    """Sends goals to the server of an action."""

    def __init__(self, node: Node, name: str, type: ActionType) -> None:
        """Announce the client. Raises InvalidName, SessionError."""
        self.name = absolute(name, node.namespace, node.name)
        self.type = type
        self._on_feedback: dict[bytes, Callable[[pa.StructArray], None]] = {}
        base = f"{self.name}/_action"
        self._send = node.service_client(f"{base}/send_goal", type.send_goal)
        self._get = node.service_client(f"{base}/get_result", type.get_result)
        self._cancel = node.service_client(f"{base}/cancel_goal", type.cancel_goal)
        self._feedback = node.subscription(
            f"{base}/feedback", type.feedback_message, self._feedback_received
        )

    @property
    def available(self) -> bool:
        """Whether a server with this name and type is known."""
        return all(client.available for client in (self._send, self._get, self._cancel))

    def wait_for_server(self, seconds: float) -> bool:
        """Wait until a server is available; return whether it is. Not from a callback."""
        return self._send.node.session.wait_for(lambda _: self.available, seconds)

    def send_goal(
        self,
        goal: Message,
        *,
        goal_id: bytes | None = None,
        on_feedback: Callable[[pa.StructArray], None] | None = None,
        timeout: float = REQUEST_SECONDS,
    ) -> Future[ClientGoal]:
        """Send a goal; return a future that completes when the server has accepted it.

        It fails with GoalError if the server rejects the goal, and with NoReply. Raises
        MalformedMessage, SessionError.
        """
        chosen = uuid.uuid4().bytes if goal_id is None else goal_id
        request = {"goal_id": _uuid(chosen), "goal": as_dictionary(goal)}
        if on_feedback is not None:
            self._on_feedback[chosen] = on_feedback

        def answered(answer: pa.StructArray) -> ClientGoal:
            if not answer[0].as_py()["accepted"]:
                raise GoalError(f"{self.name}: the server rejected the goal")
            return ClientGoal(self, chosen)

        future = then(self._send.ask(request, timeout=timeout), answered)
        future.add_done_callback(lambda done: self._forget_failed(done, chosen))
        return future

    def cancel(
        self, goal_id: bytes, *, stamp_ns: int = 0, timeout: float = REQUEST_SECONDS
    ) -> Future[CancelCode]:
        """Ask to cancel a goal, or those that `Goals.to_cancel` explains."""
        info = {"goal_id": _uuid(goal_id), "stamp": _stamp(stamp_ns)}

        def answered(answer: pa.StructArray) -> CancelCode:
            try:
                return CancelCode(answer[0].as_py()["return_code"])
            except ValueError as error:
                raise NoReply(f"{self.name}: unknown answer to a cancel request: {error}") from None

        return then(self._cancel.ask({"goal_info": info}, timeout=timeout), answered)

    def close(self) -> None:
        """Withdraw the client; requests that wait fail."""
        for endpoint in (self._feedback, self._send, self._get, self._cancel):
            endpoint.close()
        self._on_feedback.clear()

    def _result(self, goal_id: bytes, timeout: float | None) -> Future[Result]:
        def answered(answer: pa.StructArray) -> Result:
            self._on_feedback.pop(goal_id, None)
            status = answer.field("status")[0].as_py()
            if status == GoalState.UNKNOWN:
                raise NoReply(
                    f"{self.name}: the server does not know goal {goal_id.hex()}; it keeps results"
                    " for a limited time"
                )
            if status not in ENDS.values():
                raise NoReply(f"{self.name}: a result with status {status}, which is not an end")
            return Result(GoalState(status), answer.field("result"))

        return then(self._get.ask({"goal_id": _uuid(goal_id)}, timeout=timeout), answered)

    def _forget_failed(self, done: Future[ClientGoal], goal_id: bytes) -> None:
        if done.cancelled() or done.exception() is not None:
            self._on_feedback.pop(goal_id, None)

    def _feedback_received(self, payload: bytes, _: Attachment | None) -> None:
        on_feedback = self._on_feedback.get(payload[_ID])
        if on_feedback is not None:
            try:
                feedback = self.type.feedback_message.decode(payload).field("feedback")
            except MalformedMessage as error:
                _logger.warning("%s: ignored feedback: %s", self.name, error)
                return
            on_feedback(feedback)


def _info(goal: Goal) -> dict[str, Any]:
    return {"goal_id": _uuid(goal.id), "stamp": _stamp(goal.stamp_ns)}


def _uuid(goal_id: bytes) -> dict[str, Any]:
    return {"uuid": list(goal_id)}


def _stamp(time_ns: int) -> dict[str, int]:
    return {"sec": time_ns // _SECOND, "nanosec": time_ns % _SECOND}
