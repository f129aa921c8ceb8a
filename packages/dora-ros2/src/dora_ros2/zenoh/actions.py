"""Action servers and clients: three services and two topics each."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from dora_ros2.cdr.writer import as_dictionary
from dora_ros2.errors import GoalError, MalformedMessage, NoReply
from dora_ros2.types import ActionType
from dora_ros2.zenoh import keys
from dora_ros2.zenoh.attachment import Attachment
from dora_ros2.zenoh.goals import CancelCode, Goals, GoalState
from dora_ros2.zenoh.node import REQUEST_SECONDS, Node, Request, then
from dora_ros2.zenoh.qos import Qos

Message: TypeAlias = pa.StructArray | pa.StructScalar | dict[str, Any]
RESULT_SECONDS = 10.0
"""How long a server keeps results, as rclpy does."""
_STATUS_QOS = Qos(transient_local=True, depth=1)
_ID = slice(4, 20)
"""Place of the goal id in requests and in feedback."""
_SECOND = 1_000_000_000
_logger = logging.getLogger(__name__)


class ServerGoal:
    """A goal that was sent to our server. All methods may be called from any thread."""

    def __init__(self, server: ActionServer, request: Request, goal: pa.StructArray) -> None:
        self.id = request.payload[_ID]
        self.goal = goal
        self._server = server
        self._request = request

    @property
    def state(self) -> GoalState:
        """Its state; UNKNOWN before it is accepted and after its result has expired."""
        found = self._server.goals.goals.get(self.id)
        return GoalState.UNKNOWN if found is None else found.state

    def accept(self) -> None:
        """Accept the goal, which is then executing. Raises GoalError."""
        self._server._accept(self.id, self._request)

    def reject(self) -> None:
        """Reject the goal."""
        self._server._answer(self._request, accepted=False, stamp_ns=0)

    def feedback(self, feedback: Message) -> None:
        """Publish feedback. Raises MalformedMessage, SessionError."""
        self._server._publish_feedback(self.id, feedback)

    def finish(self, state: GoalState, result: Message | None = None) -> None:
        """End the goal as SUCCEEDED, CANCELED or ABORTED; an absent result has default values.

        Raises GoalError, MalformedMessage.
        """
        self._server._finish(self.id, state, result)


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
        keep_results: float = RESULT_SECONDS,
    ) -> None:
        """Announce the server. Raises InvalidName, SessionError."""
        self.name = keys.absolute(name, node.token.namespace, node.token.name)
        self.type = type
        self.goals = Goals(keep_results)
        self._on_goal = on_goal
        self._on_cancel = on_cancel
        self._lock = threading.RLock()
        self._accepted: dict[bytes, ServerGoal] = {}
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

    def _goal_requested(self, request: Request) -> None:
        goal = self.type.send_goal.request.decode(request.payload).field("goal")
        offered = ServerGoal(self, request, goal)
        with self._lock:
            known = offered.id in self.goals.goals or offered.id in self._offered
            if not known:
                self._offered[offered.id] = offered
        if known:
            offered.reject()
        else:
            self._on_goal(offered)

    def _accept(self, goal_id: bytes, request: Request) -> None:
        stamp_ns = time.time_ns()
        with self._lock:
            if goal_id not in self._offered:
                raise GoalError(f"goal {goal_id.hex()} was answered already")
            self.goals.accept(goal_id, stamp_ns)
            self._accepted[goal_id] = self._offered.pop(goal_id)
        self._answer(request, accepted=True, stamp_ns=stamp_ns)
        self._publish_status()
        with self._lock:
            self.goals.move(goal_id, GoalState.EXECUTING, time.monotonic())
        self._publish_status()

    def _answer(self, request: Request, *, accepted: bool, stamp_ns: int) -> None:
        with self._lock:
            self._offered.pop(request.payload[_ID], None)
        answer = {"accepted": accepted, "stamp": _stamp(stamp_ns)}
        request.reply(self.type.send_goal.response.encode(answer))

    def _cancel_requested(self, request: Request) -> None:
        asked = self.type.cancel_goal.request.decode(request.payload).to_pylist()[0]["goal_info"]
        stamp = asked["stamp"]
        with self._lock:
            code, found = self.goals.to_cancel(
                bytes(asked["goal_id"]["uuid"]), stamp["sec"] * _SECOND + stamp["nanosec"]
            )
            goals = [self._accepted[goal.id] for goal in found]
        accepted = [goal for goal in goals if self._may_cancel(goal)]
        if goals and not accepted:
            code = CancelCode.REJECTED
        answer = {
            "return_code": code,
            "goals_canceling": [self._info(goal.id) for goal in accepted],
        }
        request.reply(self.type.cancel_goal.response.encode(answer))
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
        self.type.get_result.request.decode(request.payload)
        goal_id = request.payload[_ID]
        with self._lock:
            self._expire()
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
            self._expire()
            statuses = [
                {"goal_info": self._info(goal.id), "status": goal.state}
                for goal in self.goals.goals.values()
            ]
            if not self._status.closed:
                self._status.publish(self.type.status.encode({"status_list": statuses}))

    def _expire(self) -> None:
        for goal_id in self.goals.expire(time.monotonic()):
            del self._accepted[goal_id]

    def _info(self, goal_id: bytes) -> dict[str, Any]:
        return {"goal_id": _uuid(goal_id), "stamp": _stamp(self.goals.goals[goal_id].stamp_ns)}


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
        self.name = keys.absolute(name, node.token.namespace, node.token.name)
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
        payload = self.type.send_goal.request.encode(request)
        if on_feedback is not None:
            self._on_feedback[chosen] = on_feedback

        def answered(payload: bytes) -> ClientGoal:
            answer = self.type.send_goal.response.decode(payload).to_pylist()[0]
            if not answer["accepted"]:
                raise GoalError(f"{self.name}: the server rejected the goal")
            return ClientGoal(self, chosen)

        future = then(self._send.call(payload, timeout=timeout), answered)
        future.add_done_callback(lambda done: self._forget_failed(done, chosen))
        return future

    def cancel(
        self, goal_id: bytes, *, stamp_ns: int = 0, timeout: float = REQUEST_SECONDS
    ) -> Future[CancelCode]:
        """Ask to cancel a goal, or those that `Goals.to_cancel` explains."""
        info = {"goal_id": _uuid(goal_id), "stamp": _stamp(stamp_ns)}
        payload = self.type.cancel_goal.request.encode({"goal_info": info})

        def answered(payload: bytes) -> CancelCode:
            answer = self.type.cancel_goal.response.decode(payload).to_pylist()[0]
            try:
                return CancelCode(answer["return_code"])
            except ValueError as error:
                raise NoReply(f"{self.name}: unknown answer to a cancel request: {error}") from None

        return then(self._cancel.call(payload, timeout=timeout), answered)

    def close(self) -> None:
        """Withdraw the client; requests that wait fail."""
        for endpoint in (self._feedback, self._send, self._get, self._cancel):
            endpoint.close()
        self._on_feedback.clear()

    def _result(self, goal_id: bytes, timeout: float | None) -> Future[Result]:
        payload = self.type.get_result.request.encode({"goal_id": _uuid(goal_id)})

        def answered(payload: bytes) -> Result:
            answer = self.type.get_result.response.decode(payload)
            self._on_feedback.pop(goal_id, None)
            status = answer.field("status")[0].as_py()
            if status == GoalState.UNKNOWN:
                raise NoReply(
                    f"{self.name}: the server does not know goal {goal_id.hex()}; it keeps results"
                    " for a limited time"
                )
            if status not in (GoalState.SUCCEEDED, GoalState.CANCELED, GoalState.ABORTED):
                raise NoReply(f"{self.name}: a result with status {status}, which is not an end")
            return Result(GoalState(status), answer.field("result"))

        return then(self._get.call(payload, timeout=timeout), answered)

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


def _uuid(goal_id: bytes) -> dict[str, Any]:
    return {"uuid": list(goal_id)}


def _stamp(time_ns: int) -> dict[str, int]:
    return {"sec": time_ns // _SECOND, "nanosec": time_ns % _SECOND}
