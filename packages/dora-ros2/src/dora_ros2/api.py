"""The classes `dora.Ros2*` for nodes that use ROS directly; names and behaviour of dora-rs."""

from __future__ import annotations

import contextlib
import operator
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from enum import Enum
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import pyarrow as pa

from dora_ros2.backlog import KEEP_ALL, Backlog
from dora_ros2.connection import Kinds, RosConnection, RosNode
from dora_ros2.definitions.description import full_name
from dora_ros2.drops import Drops
from dora_ros2.errors import DefinitionError, GoalError, InvalidName, MalformedMessage, NoReply
from dora_ros2.transport import choose_transport, connect, logger, qos_of
from dora_ros2.types import MessageType, Types
from dora_ros2.zenoh.actions import (
    ANY_GOAL,
    ENDS,
    MAX_GOALS,
    RESULT_SECONDS,
    ActionClient,
    ActionServer,
    GoalResult,
    GoalState,
    ServerGoal,
)
from dora_ros2.zenoh.endpoints import REQUEST_SECONDS, ServiceClient, ServiceRequest
from dora_ros2.zenoh.node_services import (
    ParameterServer,
    Value,
    find_description,
    serve_descriptions,
)
from dora_ros2.zenoh.tokens import Attachment, Kind, Qos, absolute

_T = TypeVar("_T")
_TAKE_SECONDS = 1.0
"""Default limit of `take_request`, `take_feedback`, `take_goal` and `take_cancel`."""
_SERVER_SECONDS = 20.0
"""Limit for a service to appear."""
_TYPE_SECONDS = 5.0
"""Limit for a publisher that describes a type to appear."""
_MAX_DEPTH = 10_000
"""Largest `keep_last`."""
_MAX_QUEUED = 1000
"""Feedback messages of a goal, or requests of a service, that wait to be taken."""
_SIM_TIME = "use_sim_time"
_NO_CLOCK = "it is always false: a node of dora has no clock; subscribe to /clock instead"


class Ros2Durability(Enum):
    """Whether late subscribers get earlier messages."""

    Volatile = "volatile"
    TransientLocal = "transient_local"
    Transient = "transient"
    Persistent = "persistent"

    def __repr__(self) -> str:
        return str(self)


class Ros2Liveliness(Enum):
    """Liveliness of a publisher: the way in which it shows that it is alive."""

    Automatic = "automatic"
    ManualByParticipant = "manual_by_participant"
    ManualByTopic = "manual_by_topic"

    def __repr__(self) -> str:
        return str(self)


class Ros2QosPolicies:
    """Quality of service; default: best effort, volatile, keep last 1. Times are in seconds."""

    def __init__(
        self,
        durability: Ros2Durability | None = None,
        liveliness: Ros2Liveliness | None = None,
        reliable: bool | None = None,
        keep_all: bool | None = None,
        lease_duration: float | None = None,
        max_blocking_time: float | None = None,
        keep_last: int | None = None,
    ) -> None:
        """`max_blocking_time` is accepted; a publisher here never waits.

        Raises TypeError, ValueError.
        """
        for name, value, kind in (
            ("durability", durability, Ros2Durability),
            ("liveliness", liveliness, Ros2Liveliness),
            ("reliable", reliable, bool),
            ("keep_all", keep_all, bool),
        ):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} must be a {kind.__name__}, not {value!r}")
        if keep_last is not None and not 1 <= operator.index(keep_last) <= _MAX_DEPTH:
            raise ValueError(f"keep_last must be 1 to {_MAX_DEPTH}, not {keep_last}")
        if lease_duration is not None and not lease_duration > 0:
            raise ValueError(f"lease_duration must be more than 0 s, not {lease_duration}")
        if max_blocking_time is not None and not max_blocking_time >= 0:
            raise ValueError(f"max_blocking_time must be at least 0 s, not {max_blocking_time}")
        written = {
            "durability": durability.value if durability is not None else None,
            "liveliness": liveliness.value if liveliness is not None else None,
            "reliable": reliable,
            "keep_all": keep_all,
            "lease_duration": lease_duration,
            "keep_last": keep_last,
        }
        self.qos = qos_of({key: value for key, value in written.items() if value is not None})


class Ros2Transport:
    """Transport to ROS: `Ros2Transport.zenoh()` or `Ros2Transport.dds()`."""

    kind: Kinds

    def __init__(self, kind: Kinds) -> None:
        self.kind = kind
        self.compatibility: str | None = None
        self.config_uri = ""

    @staticmethod
    def dds() -> Ros2Transport:
        """DDS, for topics only; needs `pip install "cyclonedds>=11.0.1"`."""
        return Ros2Transport("dds")

    @staticmethod
    def zenoh(compatibility: str | None = None, config_uri: str | None = None) -> Ros2Transport:
        """Zenoh, for nodes of rmw_zenoh: `humble`, `rep2016` (newer); default: as the nodes."""
        if compatibility not in (None, "humble", "rep2016"):
            raise ValueError("compatibility must be `humble` or `rep2016`")
        transport = Ros2Transport("zenoh")
        transport.compatibility = compatibility
        transport.config_uri = config_uri or ""
        return transport


class Ros2NodeOptions:
    """Options of a node; `rosout` is accepted and has no effect."""

    def __init__(self, rosout: bool | None = None) -> None:
        self.rosout = bool(rosout)


class Ros2Topic:
    """A topic by name, with its type."""

    def __init__(self, name: str, message_type: str, qos: Ros2QosPolicies) -> None:
        self.name = name
        self.message_type = full_name(message_type.replace("::", "/"), "msg")
        self.qos = qos


class Ros2Context:
    """A connection to ROS, and the definitions of its types.

    `ros_paths` are searched before AMENT_PREFIX_PATH and the installed definitions. Without a
    `transport` it is Zenoh if a router answers, else DDS if it is installed. Without `domain_id`
    the domain is that of ROS_DOMAIN_ID, or 0.
    """

    def __init__(
        self,
        ros_paths: Sequence[str | Path] | None = None,
        transport: Ros2Transport | None = None,
        domain_id: int | None = None,
    ) -> None:
        if transport is not None and not isinstance(transport, Ros2Transport):
            kind = type(transport).__name__
            raise TypeError(f"transport must be a Ros2Transport, not {kind}")
        if transport is None:
            choice = choose_transport(os.environ)
            logger.info("transport %s: %s", choice.kind, choice.reason)
            transport = Ros2Transport(choice.kind)
        self._types = Types([*(ros_paths or ()), Path.cwd()])
        self._connection = connect(
            transport.kind,
            domain=domain_id,
            config=transport.config_uri,
            profile=transport.compatibility,
            on_state=_log_router,
        )

    @property
    def transport_kind(self) -> str:
        return self._connection.kind

    def new_node(
        self,
        name: str,
        namespace: str,
        options: Ros2NodeOptions,
        parameters: Mapping[str, Value] | None = None,
    ) -> Ros2Node:
        """Announce a node, with its parameters and their first values."""
        return Ros2Node(self._connection, self._types, name, namespace, parameters or {})


def _log_router(waiting: str | None) -> None:
    if waiting is None:
        logger.info("connected to a Zenoh router")
    else:
        logger.warning(waiting)


class Ros2Node:
    """A node in the ROS graph; `Ros2Context.new_node` returns it."""

    def __init__(
        self,
        connection: RosConnection,
        types: Types,
        name: str,
        namespace: str,
        parameters: Mapping[str, Value],
    ) -> None:
        if _SIM_TIME in parameters:
            raise InvalidName(f"{_SIM_TIME} cannot be declared; {_NO_CLOCK}")
        self._connection = connection
        self._types = types
        self._node = RosNode(connection, name, namespace)
        try:
            if self._node.has_services:
                serve_descriptions(self._node, types.description)
            self._parameters = ParameterServer(
                self._node, types, {_SIM_TIME: False, **parameters}, on_set=_refusal
            )
        except BaseException:
            self._node.close()
            raise

    def create_topic(self, name: str, message_type: str, qos: Ros2QosPolicies) -> Ros2Topic:
        """Return a topic for `create_publisher` and `create_subscription`."""
        absolute(name)
        return Ros2Topic(name, message_type, qos)

    def create_publisher(
        self, topic: Ros2Topic, qos: Ros2QosPolicies | None = None
    ) -> Ros2Publisher:
        """Announce a publisher; `qos` replaces that of the topic."""
        kind = self._types.message(topic.message_type)
        return Ros2Publisher(self._node, topic.name, kind, (qos or topic.qos).qos)

    def create_subscription(
        self, topic: Ros2Topic, qos: Ros2QosPolicies | None = None
    ) -> Ros2Subscription:
        """Announce a subscription. A type that is not installed is requested from a publisher."""
        try:
            kind = self._types.message(topic.message_type)
        except DefinitionError:
            kind = self._described(topic)
        return Ros2Subscription(self._node, topic.name, kind, (qos or topic.qos).qos)

    def create_service_client(
        self, service_name: str, service_type: str, qos: Ros2QosPolicies
    ) -> Ros2ServiceClient:
        """Announce a client, and wait up to 20 s for a server."""
        return Ros2ServiceClient(self._node, self._types, service_name, service_type)

    def create_service_server(
        self, service_name: str, service_type: str, qos: Ros2QosPolicies
    ) -> Ros2ServiceServer:
        """Announce a server: `take_request` returns requests, `send_response` replies."""
        return Ros2ServiceServer(self._node, self._types, service_name, service_type)

    def create_action_client(
        self, action_name: str, action_type: str, qos: Ros2QosPolicies
    ) -> Ros2ActionClient:
        """Announce a client of an action."""
        return Ros2ActionClient(self._node, self._types, action_name, action_type)

    def create_action_server(
        self, action_name: str, action_type: str, qos: Ros2QosPolicies
    ) -> Ros2ActionServer:
        """Announce a server of an action, which accepts goals itself, up to 8 at once."""
        return Ros2ActionServer(self._node, self._types, action_name, action_type)

    def get_parameter(self, name: str) -> Value:
        """Return the value of a parameter; None if it is not declared."""
        return self._parameters.values.get(name)

    def has_parameter(self, name: str) -> bool:
        """Whether a parameter is declared."""
        return name in self._parameters.values

    def list_parameters(self) -> list[str]:
        """Return the names of all declared parameters."""
        return sorted(self._parameters.values)

    def set_parameter(self, name: str, value: Value) -> None:
        """Change a declared parameter. Raises RuntimeError."""
        refused = self._parameters.set({name: value})
        if refused is not None:
            raise InvalidName(f"failed to set parameter `{name}`: {refused}")

    def _described(self, topic: Ros2Topic) -> MessageType:
        name = absolute(topic.name, self._node.namespace, self._node.name)

        def publishers() -> list[Any]:
            found = self._connection.graph.endpoints(Kind.PUBLISHER, name=name)
            return [one for one in found if one.type == topic.message_type]

        self._connection.wait_for(lambda _: publishers(), _TYPE_SECONDS)
        for endpoint in publishers():
            return MessageType(find_description(self._node, self._types, endpoint))
        return self._types.message(topic.message_type)  # raises


def _refusal(values: Mapping[str, Value]) -> str | None:
    return _NO_CLOCK if values.get(_SIM_TIME) else None


class Ros2Publisher:
    """Publishes to a topic."""

    def __init__(self, node: RosNode, name: str, kind: MessageType, qos: Qos) -> None:
        self._type = kind
        self._publisher = node.publisher(name, kind, qos)

    def publish(self, data: pa.Array) -> None:
        """Publish a struct array of one row; absent fields have their defaults."""
        if not isinstance(data, pa.Array | pa.StructScalar):
            raise TypeError(f"expected a pyarrow array, got {type(data).__name__}")
        self._publisher.publish(self._type.encode(data))


class Ros2Subscription:
    """Receives the messages of a topic; `RosNode.merge_external_events` takes it."""

    def __init__(self, node: RosNode, name: str, kind: MessageType, qos: Qos) -> None:
        self._type = kind
        always = 1 if qos.keep_all else qos.depth
        self._queue: Backlog[bytes] = Backlog(KEEP_ALL if qos.keep_all else always, always=always)
        self._lock = threading.Lock()
        self._descriptor = -1
        self._drops = Drops()
        self._subscription = node.subscription(name, kind, self._received, qos)

    def next(self) -> pa.StructArray | None:
        """Return the next message; None if there is none. Never waits."""
        while True:
            with self._lock:
                if not self._queue:
                    return None
                payload = self._queue.popleft()
            try:
                return self._type.decode(payload)
            except MalformedMessage as error:
                text = self._drops.add(str(error), time.monotonic())
                if text is not None:
                    logger.warning("%s: %s", self._subscription.name, text)

    def notify(self, descriptor: int) -> None:
        """Write to this eventfd for each message that arrives."""
        self._descriptor = descriptor

    def _received(self, payload: bytes, _: Attachment | None) -> None:
        with self._lock:
            self._queue.append(payload, len(payload))
        if self._descriptor >= 0:
            os.eventfd_write(self._descriptor, 1)


class Ros2ServiceClient:
    """Sends requests to a service."""

    def __init__(self, node: RosNode, types: Types, name: str, kind: str) -> None:
        self._client: ServiceClient = node.service_client(name, types.service(_slashes(kind)))
        if not self._client.wait_for_server(_SERVER_SECONDS):
            self._client.close()
            raise NoReply(f"service `{name}` not available within {_SERVER_SECONDS:g} s")

    def call(self, request: pa.Array, timeout_s: float | None = None) -> pa.StructArray:
        """Send a request and return the response; raises RuntimeError after 30 s by default."""
        seconds = REQUEST_SECONDS if timeout_s is None else timeout_s
        return self._client.ask(request, timeout=seconds).result()


class Ros2ServiceServer:
    """Receives the requests of a service."""

    def __init__(self, node: RosNode, types: Types, name: str, kind: str) -> None:
        self._requests: SimpleQueue[tuple[ServiceRequest, pa.StructArray]] = SimpleQueue()
        self._taken: dict[int, ServiceRequest] = {}
        self._number = 0
        self._server = node.service_server(name, types.service(_slashes(kind)), self._requested)

    def take_request(self, timeout_s: float | None = None) -> tuple[int, pa.StructArray] | None:
        """Return id and value of the next request; None after `timeout_s` (default 1 s)."""
        found = _take(self._requests, timeout_s)
        if found is None:
            return None
        self._number += 1
        self._taken[self._number] = found[0]
        return self._number, found[1]

    def send_response(self, request_id: int, response: pa.Array) -> None:
        """Reply to a request. Raises RuntimeError."""
        request = self._taken.get(request_id)
        if request is None:
            raise NoReply(f"unknown request_id {request_id} (already answered or never taken)")
        request.answer(response)
        del self._taken[request_id]

    def _requested(self, request: ServiceRequest) -> None:
        if self._requests.qsize() >= _MAX_QUEUED:
            request.fail("too many requests wait")
        else:
            self._requests.put((request, request.value))


class Ros2ActionClient:
    """Sends goals to an action; the id of a goal is the text of its UUID."""

    def __init__(self, node: RosNode, types: Types, name: str, kind: str) -> None:
        self._client = ActionClient(node, name, types.action(_slashes(kind)))
        self._feedback: dict[str, SimpleQueue[pa.StructArray]] = {}
        """Feedback of the goals that were accepted and have no result yet."""
        self._results: dict[str, Future[GoalResult]] = {}

    def send_goal(self, goal: pa.Array, timeout_s: float | None = None) -> str:
        """Send a goal and return its id once it is accepted. Raises RuntimeError."""
        if len(self._feedback) >= MAX_GOALS:
            raise GoalError(f"{MAX_GOALS} goals have no result yet; take or cancel one")
        seconds = REQUEST_SECONDS if timeout_s is None else timeout_s
        until = time.monotonic() + seconds
        self._client.wait_for_server(seconds)
        goal_id = uuid.uuid4()
        feedback: SimpleQueue[pa.StructArray] = SimpleQueue()
        self._client.send_goal(
            goal,
            goal_id=goal_id.bytes,
            on_feedback=partial(_put, feedback),
            timeout=max(0.1, until - time.monotonic()),
        ).result()
        self._feedback[str(goal_id)] = feedback
        return str(goal_id)

    def take_feedback(self, goal_id: str, timeout_s: float | None = None) -> pa.StructArray | None:
        """Return the next feedback of a goal; None after `timeout_s` (default 1 s)."""
        self._known(goal_id)
        return _take(self._feedback[goal_id], timeout_s)

    def take_result(
        self, goal_id: str, timeout_s: float | None = None
    ) -> tuple[str, pa.StructArray] | None:
        """Wait for the end of a goal, by default up to 5 min; None after `timeout_s`.

        Returns `succeeded`, `canceled` or `aborted`, and the result.
        """
        target = self._known(goal_id)
        future = self._results.get(goal_id)
        if future is None or (future.done() and future.exception() is not None):
            future = self._results[goal_id] = self._client.result(target)
        try:
            result = future.result(RESULT_SECONDS if timeout_s is None else timeout_s)
        except TimeoutError:
            return None
        for held in (self._feedback, self._results):
            held.pop(goal_id, None)  # another thread may have removed it
        return result.state.name.lower(), result.result

    def cancel(self, goal_id: str | None = None, timeout_s: float | None = None) -> int:
        """Request to cancel a goal, or all; return the code of the answer: 0 if it was accepted."""
        seconds = REQUEST_SECONDS if timeout_s is None else timeout_s
        target = ANY_GOAL if goal_id is None else self._known(goal_id)
        return int(self._client.cancel(target, timeout=seconds).result())

    def _known(self, goal_id: str) -> bytes:
        if goal_id not in self._feedback:
            raise GoalError(f"unknown goal_id {goal_id}")
        return uuid.UUID(goal_id).bytes


class Ros2ActionServer:
    """Serves an action: accepts goals, up to 8 at once, and requests to cancel them."""

    def __init__(self, node: RosNode, types: Types, name: str, kind: str) -> None:
        self._offered: SimpleQueue[tuple[str, pa.StructArray]] = SimpleQueue()
        self._cancelled: SimpleQueue[str] = SimpleQueue()
        self._server = ActionServer(
            node,
            name,
            types.action(_slashes(kind)),
            self._requested,
            on_cancel=self._cancel_requested,
            keep_results=RESULT_SECONDS,
        )

    def take_goal(self, timeout_s: float | None = None) -> tuple[str, pa.StructArray] | None:
        """Return id and value of the next goal; None after `timeout_s` (default 1 s)."""
        return _take(self._offered, timeout_s)

    def take_cancel(self, timeout_s: float | None = None) -> list[str] | None:
        """Return the goals that are to be canceled; None after `timeout_s` (default 1 s)."""
        first = _take(self._cancelled, timeout_s)
        if first is None:
            return None
        found = [first]
        with contextlib.suppress(Empty):
            while True:
                found.append(self._cancelled.get_nowait())
        return [key for key in found if key in self._server.running()] or None

    def send_feedback(self, goal_id: str, feedback: pa.Array) -> None:
        """Publish feedback. Raises RuntimeError."""
        self._known(goal_id).feedback(feedback)

    def send_result(
        self,
        goal_id: str,
        result: pa.Array,
        status: str | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """End a goal: `succeeded` (default), `canceled`; any other status is `aborted`.

        Waits until a client has received the result, and raises RuntimeError after `timeout_s`
        (default 5 min); the result is kept, and a second call waits again.
        """
        goal = self._server.unfetched(goal_id)
        if goal is None:
            goal = self._known(goal_id)
            state = GoalState.SUCCEEDED if status is None else ENDS.get(status, GoalState.ABORTED)
            goal.finish(state, result)
        seconds = RESULT_SECONDS if timeout_s is None else max(0.0, timeout_s)
        if not goal.fetched.wait(seconds):
            raise NoReply(f"the result of goal {goal_id} was not requested within {seconds:g} s")

    def _known(self, goal_id: str) -> ServerGoal:
        goal = self._server.running().get(goal_id)
        if goal is None:
            raise GoalError(f"unknown goal_id {goal_id} (it has a result or was never taken)")
        return goal

    def _requested(self, goal: ServerGoal) -> None:
        if len(goal.server.running()) >= MAX_GOALS:
            goal.reject()
        else:
            goal.accept()
            self._offered.put((goal.key, goal.goal))

    def _cancel_requested(self, goal: ServerGoal) -> bool:
        self._cancelled.put(goal.key)
        return True


def _slashes(kind: str) -> str:
    return kind.replace("::", "/")


def _put(queue: SimpleQueue[_T], item: _T) -> None:
    """Add an item; the oldest is dropped if too many wait."""
    if queue.qsize() >= _MAX_QUEUED:
        with contextlib.suppress(Empty):
            queue.get_nowait()
    queue.put(item)


def _take(queue: SimpleQueue[_T], timeout_s: float | None) -> _T | None:
    try:
        return queue.get(timeout=_TAKE_SECONDS if timeout_s is None else max(0.0, timeout_s))
    except Empty:
        return None
