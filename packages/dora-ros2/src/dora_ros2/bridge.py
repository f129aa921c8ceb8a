"""The node behind `ros2:` in a dataflow.

The main thread takes events of the dataflow. The keeper thread connects to ROS, and opens each
channel once its type is known.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import pyarrow as pa

from dora_node_api import Node as DoraNode
from dora_node_api.ids import uuid7
from dora_ros2.backlog import KEEP_ALL, Backlog
from dora_ros2.connection import Payload, Publisher, RosConnection, RosNode
from dora_ros2.definitions.description import full_name
from dora_ros2.drops import Drops
from dora_ros2.errors import DefinitionError, MalformedMessage, Ros2Error
from dora_ros2.topics import TYPE_KEY, node_name
from dora_ros2.transport import Choice, choose_transport, connect, logger, qos_of, router_answers
from dora_ros2.types import MessageType, Types
from dora_ros2.zenoh.actions import (
    ENDS,
    MAX_GOALS,
    RESULT_SECONDS,
    ActionClient,
    ActionServer,
    GoalResult,
    GoalState,
    ServerGoal,
)
from dora_ros2.zenoh.endpoints import REQUEST_SECONDS, ServiceRequest, then
from dora_ros2.zenoh.graph import Graph
from dora_ros2.zenoh.node_services import find_description, serve_descriptions
from dora_ros2.zenoh.tokens import NO_HASH, Attachment, EndpointToken, Kind, absolute

_T = TypeVar("_T")
SETTINGS = "DORA_ROS2"
"""Variable with the `ros2` block of the node, as JSON."""
_KEEPER_SECONDS = 0.5
"""Longest time between two updates of the channels."""
_PATIENCE_SECONDS = 1.5
"""Seconds after which the lists of dora show missing conditions."""
_GRAPH_SECONDS = 1.0
"""Shortest time in seconds between two graphs that are sent to the page."""
_FINISH_SECONDS = 0.05
"""Seconds between two checks at the end whether requests or goals are in progress."""
_MAX_REORDERED = 1000
"""Most events that the bridge of an action server reorders together."""
_ANY = "*"
_FEEDBACK, _CANCEL = "feedback", "cancel"
_EXTRA_OUTPUTS = (_FEEDBACK, _CANCEL)
"""Optional outputs of actions."""


MAX_REQUESTS = 64
"""Requests of a service that may wait for their responses."""
_CLOSE_SECONDS = 2.0
"""Seconds for the last messages at the end."""
_PROBE_SECONDS = 1.0
"""Interval at which a bridge over DDS looks for a router."""
_MAX_LISTED = 3
"""Most items that a text lists."""
_MIN_QUEUED = 64
"""Fewest messages of a topic that may wait for the dataflow or for the topic to be opened."""


class BridgeSender:
    """A thread that sends to the dataflow, since a full queue there may block."""

    def __init__(self, node: DoraNode) -> None:
        self.node = node
        self.outputs: Sequence[str] = node.node_config()["outputs"]
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ros2-sender", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        """Call `job` after all earlier jobs."""
        self._jobs.put(job)

    def close(self) -> None:
        """Finish the jobs, unless they are blocked."""
        self._jobs.put(None)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - further messages may be sent
                logger.exception("a message was not sent to the dataflow")


Waiting: TypeAlias = str | DefinitionError | None
"""Condition that a channel waits for; the user provides a definition, the bridge finds the rest."""


def waiting_text(found: Iterable[Waiting]) -> str | None:
    """Return the conditions that channels wait for as a short text; None if none waits."""
    present = {str(one): one for one in found if one is not None}.values()
    texts = [one for one in present if isinstance(one, str)]
    missing = [one for one in present if not isinstance(one, str)]
    parts = texts[:_MAX_LISTED]
    if len(texts) > _MAX_LISTED:
        parts.append(f"and {len(texts) - _MAX_LISTED} more")
    if missing:
        more = f" (and {len(missing) - 1} more types)" if len(missing) > 1 else ""
        parts.append(f"waits for a definition{more}: {missing[0]}")
    return "; ".join(parts) or None


class BridgeChannel:
    """One topic, service or action."""

    noun: ClassVar[str]

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        self.name: str = settings[self.noun]
        kind = "message" if self.noun == "topic" else self.noun
        self.type_name: str = settings.get(f"{kind}_type", "")
        self.sender = sender
        self.types = types
        self.endpoint: Any = None
        self.lock = threading.RLock()
        self._drops = Drops()

    def update(self, node: RosNode, graph: Graph) -> Waiting:
        """Open what can be opened; return what the channel waits for. On the keeper thread."""
        raise NotImplementedError

    def reset(self) -> None:
        """Discard the endpoint, whose connection was closed; `update` opens another one."""
        with self.lock:
            self.endpoint = None

    def has_met(self, node: RosNode, graph: Graph) -> bool:
        """Return whether another process has an endpoint of the other side."""
        return True

    def receive(self, port: str, value: pa.Array, metadata: Mapping[str, Any]) -> None:
        """Process a message of the dataflow."""
        raise NotImplementedError

    def busy_until(self) -> float:
        """Return the latest end of requests and goals by the monotonic clock; 0 without any."""
        return 0.0

    def close(self) -> None:
        """Withdraw the endpoint, and report how many messages were dropped."""
        if self.endpoint is not None:
            self.endpoint.close()
        with self.lock:
            self._warn(self._drops.rest())
            if self._drops.total > 1:
                self._warn(f"dropped {self._drops.total} messages in all")

    def drop(self, reason: object, count: int = 1) -> None:
        """Count dropped messages; log them now or later."""
        with self.lock:
            self._warn(self._drops.add(str(reason), time.monotonic(), count))

    def warn_of_drops(self) -> None:
        """Log the drops since the last warning, if that is long ago."""
        with self.lock:
            self._warn(self._drops.due(time.monotonic()))

    def _warn(self, text: str | None) -> None:
        if text is not None:
            logger.warning("%s: %s", self.name, text)


class BridgeQueue(Generic[_T]):
    """Messages that wait for the dataflow; if it is too slow, the oldest one is dropped."""

    def __init__(
        self, channel: BridgeChannel, backlog: Backlog[_T], send: Callable[[_T], None]
    ) -> None:
        self._channel = channel
        self._backlog = backlog
        self._send = send
        self._lock = threading.Lock()

    def put(self, item: _T, size: int = 0) -> None:
        """Send an item after all earlier items, on the thread of the sender."""
        with self._lock:
            dropped = self._backlog.append(item, size)
        if dropped:  # the job of the dropped item sends this one
            self._channel.drop("the dataflow does not take messages fast enough", dropped)
        else:
            self._channel.sender.put(self._send_next)

    def _send_next(self) -> None:
        with self._lock:
            if not self._backlog:
                return
            item = self._backlog.popleft()
        self._send(item)


class Topic(BridgeChannel):
    """A topic; if its type is unknown, the endpoints of the other side describe it."""

    noun = "topic"
    other: ClassVar[Kind]
    """Kind of endpoints on the other side."""

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        super().__init__(settings, sender, types)
        self.output: str = settings.get("output", "")
        self.qos = qos_of(settings.get("qos") or {})
        limit = KEEP_ALL if self.qos.keep_all else max(self.qos.depth, _MIN_QUEUED)
        self.held: Backlog[Any] = Backlog(limit, always=1 if self.qos.keep_all else self.qos.depth)
        """Messages that wait for the dataflow, or until the topic is open."""
        self.type: MessageType | None = None
        self._graph = Graph()
        self._mismatched: set[str] = set()

    def open(self, node: RosNode, kind: MessageType) -> Any:
        """Return the publisher or subscription."""
        raise NotImplementedError

    def reset(self) -> None:
        with self.lock:
            self.type = self.endpoint = None

    def has_met(self, node: RosNode, graph: Graph) -> bool:
        name = absolute(self.name, node.namespace, node.name)
        others = graph.endpoints(self.other, name=name)
        return any(one.node.zid != node.token.zid for one in others)

    def update(self, node: RosNode, graph: Graph) -> Waiting:
        self._graph = graph
        if self.type is None and self.type_name:
            try:
                self._open(node, self.types.message(self.type_name))
            except DefinitionError as error:
                if error.file:
                    raise  # invalid; a missing definition may come from the other side
        wanted = full_name(self.type_name, "msg") if self.type_name else None
        name = absolute(self.name, node.namespace, node.name)
        others = [
            one for one in graph.endpoints(self.other, name=name) if wanted in (None, one.type)
        ]
        if self.type is None and not others:
            what = "with a type" if wanted is None else f"that describes {wanted}"
            return f"waits for a {self.other.name.lower()} of {self.name} {what}"
        if others and not any(self._matches(one) for one in others):
            return self._follow(node, others[0])
        return None

    def _matches(self, other: EndpointToken) -> bool:
        held = self.type
        return held is not None and other.type == held.name and other.hash in (NO_HASH, held.hash)

    def _follow(self, node: RosNode, other: EndpointToken) -> Waiting:
        """Use the type of the other side, whose definition may differ from the installed one."""
        if self.type is not None and other.hash in self._mismatched:
            return None
        try:
            described = find_description(node, self.types, other)
            self._open(node, MessageType(described))
        except Ros2Error as error:
            if self.type is None and isinstance(error, DefinitionError):
                return error
            if self.type is None:
                return f"waits for the type of {self.name}: {error}"
            if other.hash not in self._mismatched:
                self._mismatched.add(other.hash)
                logger.warning("%s: no messages of %s: %s", self.name, other.node.full_name, error)
        return None

    def _open(self, node: RosNode, kind: MessageType) -> None:
        with self.lock:
            if self.endpoint is not None:
                self.endpoint.close()
            self.type = self.endpoint = None
            self.endpoint = self.open(node, kind)
            self.type = kind


class SubscribedTopic(Topic):
    """Sends the messages of a topic to an output."""

    other = Kind.PUBLISHER

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        super().__init__(settings, sender, types)
        self._outbox = BridgeQueue(self, self.held, self._send)

    def open(self, node: RosNode, kind: MessageType) -> Any:
        return node.subscription(self.name, kind, partial(self._received, kind), self.qos)

    def _received(self, kind: MessageType, payload: bytes, attachment: Attachment | None) -> None:
        self._outbox.put((kind, payload, attachment), len(payload))

    def _send(self, message: tuple[MessageType, bytes, Attachment | None]) -> None:
        kind, payload, attachment = message
        try:
            value = kind.decode(payload)
        except MalformedMessage as error:
            self.drop(f"{error} (from {self._publisher(attachment)})")
            return
        known = {} if self.type_name else {TYPE_KEY: kind.name}
        self.sender.node.send_output(self.output, value, known)

    def _publisher(self, attachment: Attachment | None) -> str:
        token = self._graph.sender(attachment.gid) if attachment is not None else None
        return token.node.full_name if token is not None else "an unknown publisher"


class PublishedTopic(Topic):
    """Publishes the messages of an input."""

    other = Kind.SUBSCRIPTION
    _held_until = 0.0

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        super().__init__(settings, sender, types)
        depth = KEEP_ALL if self.qos.keep_all else self.qos.depth
        self._kept: Backlog[tuple[MessageType, Payload]] = Backlog(
            depth if self.qos.transient_local else 0
        )
        """Kept messages for late subscriptions; they are published again if the type changes."""

    def open(self, node: RosNode, kind: MessageType) -> Any:
        kept = [before.decode(payload) for before, payload in self._kept]
        publisher = node.publisher(self.name, kind, self.qos)
        self._kept.clear()
        for value in kept:
            self._publish(publisher, kind, value)
        while self.held:
            self._publish(publisher, kind, self.held.popleft())
        return publisher

    def receive(self, port: str, value: pa.Array, metadata: Mapping[str, Any]) -> None:
        with self.lock:
            if self.type is not None:
                self._publish(self.endpoint, self.type, value)
                return
            dropped = self.held.append(value, value.nbytes)
            if dropped:
                self.drop("the topic is not open yet", dropped)
            self._held_until = time.monotonic() + REQUEST_SECONDS

    def busy_until(self) -> float:
        return self._held_until if self.held else 0.0

    def _publish(self, publisher: Publisher, kind: MessageType, value: pa.Array) -> None:
        try:
            payload = kind.encode(value)
            publisher.publish(payload)
        except Ros2Error as error:
            self.drop(error)
        else:
            self._kept.append((kind, payload), len(payload))

    def close(self) -> None:
        if self.held:
            self.drop("the topic was not opened", len(self.held))
        super().close()


_Answer: TypeAlias = tuple[str, pa.Array, Mapping[str, Any]]
"""Output, value and metadata."""


class _Exchange(BridgeChannel):
    """Base of clients and servers of services and actions."""

    def open(self, node: RosNode) -> Any:
        """Return the client or server. Raises DefinitionError."""
        raise NotImplementedError

    def update(self, node: RosNode, graph: Graph) -> Waiting:
        if self.endpoint is None:
            try:
                self.endpoint = self.open(node)
            except DefinitionError as error:
                if error.file:
                    raise
                return error
        return self.check()

    def check(self) -> str | None:
        """Return the condition that the opened endpoint waits for."""
        return None

    def output(self, name: str, value: pa.Array, metadata: Mapping[str, Any]) -> None:
        """Send to the output with this name, else to the first one without a special name."""
        if name not in self.sender.outputs:
            if name in _EXTRA_OUTPUTS:
                return
            name = next((one for one in self.sender.outputs if one not in _EXTRA_OUTPUTS), name)
        self.sender.put(partial(self.sender.node.send_output, name, value, metadata))


class _Caller(_Exchange):
    """Base of clients of services and actions: requests that wait for their server."""

    limit: int
    ordered: bool
    """Whether answers are in the order of the requests, except to those with a ``request_id``."""

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        super().__init__(settings, sender, types)
        self._waiting: deque[tuple[float, pa.Array, Mapping[str, Any]]] = deque()
        """Requests without a known server, each with its deadline."""
        self._in_flight = 0
        self._order: deque[Future[_Answer]] = deque()

    def send(self, value: pa.Array, metadata: Mapping[str, Any]) -> Future[_Answer]:
        """Send a request; return a future of what the dataflow receives. Raises Ros2Error."""
        raise NotImplementedError

    def check(self) -> str | None:
        available = self.endpoint.available
        with self.lock:
            while self._waiting and (available or self._waiting[0][0] < time.monotonic()):
                _, value, metadata = self._waiting.popleft()
                if available:
                    self._send(value, metadata)
                else:
                    self.drop(f"no server within {REQUEST_SECONDS:g} s")
        if available:
            return None
        problem = self.endpoint.mismatch
        waiting = f"waits for a server of {self.noun} {self.name}"
        return f"{waiting}: {problem}" if problem else waiting

    def receive(self, port: str, value: pa.Array, metadata: Mapping[str, Any]) -> None:
        with self.lock:
            if self._in_flight + len(self._waiting) >= self.limit:
                self.drop(f"{self.limit} others wait for their answers")
            elif self._waiting or self.endpoint is None or not self.endpoint.available:
                self._waiting.append((time.monotonic() + REQUEST_SECONDS, value, metadata))
            else:
                self._send(value, metadata)

    def busy_until(self) -> float:
        with self.lock:
            if self._in_flight:
                return math.inf  # each request has its own time limit
            return self._waiting[-1][0] if self._waiting else 0.0

    def _send(self, value: pa.Array, metadata: Mapping[str, Any]) -> None:
        try:
            future = self.send(value, metadata)
        except Ros2Error as error:
            self.drop(error)
            return
        self._in_flight += 1
        if self.ordered and "request_id" not in metadata:
            self._order.append(future)
            future.add_done_callback(lambda _: self.sender.put(self._finish_first))
        else:
            future.add_done_callback(lambda done: self.sender.put(partial(self._finish, done)))

    def _finish_first(self) -> None:
        while self._order and self._order[0].done():
            self._finish(self._order.popleft())

    def _finish(self, done: Future[_Answer]) -> None:
        """Send the answer of a request. On the thread of the sender."""
        try:
            self.output(*done.result())
        except Ros2Error as error:
            self.drop(error)
        finally:
            with self.lock:
                self._in_flight -= 1


class ServiceCaller(_Caller):
    """Sends inputs as requests, and responses to an output, with the metadata of the requests."""

    noun = "service"
    limit = MAX_REQUESTS
    ordered = True

    def open(self, node: RosNode) -> Any:
        return node.service_client(self.name, self.types.service(self.type_name))

    def send(self, value: pa.Array, metadata: Mapping[str, Any]) -> Future[_Answer]:
        future = self.endpoint.ask(value, timeout=REQUEST_SECONDS)
        return then(future, lambda response: ("response", response, metadata))


class ServiceHost(_Exchange):
    """Sends requests to an output with a ``request_id``; inputs with this id are the responses.

    A response without id is that of the oldest request.
    """

    noun = "service"

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        super().__init__(settings, sender, types)
        self.pending: dict[str, tuple[float, ServiceRequest]] = {}
        """Requests without a response of the dataflow, by id, each with its deadline."""
        self._outbox = BridgeQueue(self, Backlog[tuple[str, pa.Array]](MAX_REQUESTS), self._send)

    def open(self, node: RosNode) -> Any:
        service = self.types.service(self.type_name)
        return node.service_server(self.name, service, self._requested)

    def check(self) -> str | None:
        now = time.monotonic()
        with self.lock:
            late = [key for key, (until, _) in self.pending.items() if until < now]
            expired = [self.pending.pop(key)[1] for key in late]
        for request in expired:
            request.fail("no response of the dataflow")
            self.drop(f"no response of the dataflow within {REQUEST_SECONDS:g} s")
        return None

    def _requested(self, request: ServiceRequest) -> None:
        value = request.value  # an error is the reply
        key = uuid7()
        with self.lock:
            full = len(self.pending) >= MAX_REQUESTS
            if not full:
                self.pending[key] = (time.monotonic() + REQUEST_SECONDS, request)
        if full:
            request.fail("too many requests wait")
            self.drop(f"{MAX_REQUESTS} others wait for their responses")
            return
        self._outbox.put((key, value))

    def _send(self, item: tuple[str, pa.Array]) -> None:
        key, value = item
        if key in self.pending:  # otherwise the request has expired
            self.output("request", value, {"request_id": key})

    def receive(self, port: str, value: pa.Array, metadata: Mapping[str, Any]) -> None:
        with self.lock:
            first = next(iter(self.pending), None)
            key = metadata.get("request_id", first)
            found = self.pending.pop(str(key), None)
        if found is None:
            known = f"no request with the `request_id` {key} waits"
            self.drop("no request waits for a response" if first is None else known)
            return
        try:
            found[1].answer(value)
        except Ros2Error as error:
            found[1].fail(str(error))
            self.drop(error)


class ActionCaller(_Caller):
    """Sends inputs as goals; feedback and results have their ``goal_id``.

    Results have a ``goal_status`` as well. A ``goal_id`` of the input that is a UUID is that of the
    goal.
    """

    noun = "action"
    limit = MAX_GOALS
    ordered = False

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        super().__init__(settings, sender, types)
        self._feedback = BridgeQueue(
            self,
            Backlog[tuple[pa.Array, Mapping[str, Any]]](_MIN_QUEUED),
            lambda item: self.output(_FEEDBACK, *item),
        )

    def open(self, node: RosNode) -> Any:
        return ActionClient(node, self.name, self.types.action(self.type_name))

    def send(self, value: pa.Array, metadata: Mapping[str, Any]) -> Future[_Answer]:
        try:
            goal_id = uuid.UUID(str(metadata.get("goal_id")))
        except ValueError:
            goal_id = uuid.uuid4()
        known = {**metadata, "goal_id": str(goal_id)}

        def ended(result: GoalResult) -> _Answer:
            return "result", result.result, {**known, "goal_status": result.state.name.lower()}

        accepted = self.endpoint.send_goal(
            value,
            goal_id=goal_id.bytes,
            on_feedback=lambda feedback: self._feedback.put((feedback, known), feedback.nbytes),
            timeout=REQUEST_SECONDS,
        )
        result = then(
            accepted, lambda _: self.endpoint.result(goal_id.bytes, timeout=RESULT_SECONDS)
        )
        return then(result, ended)


class ActionHost(_Exchange):
    """Sends goals to an output with a ``goal_id``; takes feedback and results from two inputs."""

    noun = "action"

    def __init__(self, settings: Mapping[str, Any], sender: BridgeSender, types: Types) -> None:
        super().__init__(settings, sender, types)
        self._until: dict[str, float] = {}
        """Time by which each goal without a result must have feedback or a result."""
        self._outbox = BridgeQueue(self, Backlog[ServerGoal](MAX_GOALS), self._send)

    def open(self, node: RosNode) -> Any:
        return ActionServer(
            node,
            self.name,
            self.types.action(self.type_name),
            self._requested,
            on_cancel=self._cancel_requested,
            keep_results=RESULT_SECONDS,
        )

    def check(self) -> str | None:
        now, running = time.monotonic(), self._running()
        with self.lock:
            self._until = {key: self._until.get(key, now + RESULT_SECONDS) for key in running}
            late = [key for key, until in self._until.items() if until < now]
        for key in late:
            self.drop(f"no result of the dataflow for goal {key}, and no feedback for long")
            self._abort(running[key])
        return None

    def _requested(self, goal: ServerGoal) -> None:
        if len(goal.server.running()) >= MAX_GOALS:
            goal.reject()
            self.drop(f"{MAX_GOALS} other goals have no result yet")
            return
        goal.accept()
        self._outbox.put(goal)

    def _send(self, goal: ServerGoal) -> None:
        if not goal.state.ended:
            self.output("goal", goal.goal, {"goal_id": goal.key})

    def _cancel_requested(self, goal: ServerGoal) -> bool:
        """Accept if the dataflow can receive it; it then ends the goal as `canceled`."""
        if _CANCEL not in self.sender.outputs:
            logger.warning("%s: refused to cancel a goal: no output `%s`", self.name, _CANCEL)
            return False
        known = {"goal_id": goal.key}
        self.output(_CANCEL, pa.array([known]), known)
        return True

    def receive(self, port: str, value: pa.Array, metadata: Mapping[str, Any]) -> None:
        key = str(metadata.get("goal_id"))
        goal = self._running().get(key)
        if goal is None:
            self.drop(f"no goal without a result has the `goal_id` {key}")
            return
        try:
            if port == _FEEDBACK:
                with self.lock:
                    self._until.pop(key, None)
                goal.feedback(value)
                return
            written = str(metadata.get("goal_status", "succeeded"))
            if written not in ENDS:
                self.drop(f'"{written}" is not a `goal_status`; the goal is aborted')
            goal.finish(ENDS.get(written, GoalState.ABORTED), value)
        except Ros2Error as error:
            self.drop(error)
            if port != _FEEDBACK:
                self._abort(goal)

    def _running(self) -> dict[str, ServerGoal]:
        return {} if self.endpoint is None else self.endpoint.running()

    def _abort(self, goal: ServerGoal) -> None:
        with contextlib.suppress(Ros2Error):
            goal.finish(GoalState.ABORTED)

    def close(self) -> None:
        for goal in self._running().values():
            self._abort(goal)
        super().close()


class Bridge:
    """One `ros2:` node."""

    def __init__(self, node: DoraNode, settings: Mapping[str, Any]) -> None:
        self._node = node
        self._settings = settings
        self._types = Types([Path.cwd()])
        self._sender = BridgeSender(node)
        self._channels = _channels(settings, self._sender, self._types)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._connection: RosConnection | None = None
        self._router: str | None = None
        self._since = time.monotonic()
        self._waiting: str | None = None
        self._shown_changes, self._shown_at = -1, 0.0
        self._failure: Exception | None = None

    def run(self) -> None:
        """Bridge until the dataflow stops or all inputs have ended. Raises Ros2Error."""
        keeper = threading.Thread(target=self._keep, name="ros2-keeper", daemon=True)
        keeper.start()
        while self._failure is None:
            event = self._node.next(timeout=_KEEPER_SECONDS)
            if event is None or not all(map(self._take, self._in_order(event))):
                break
        self._stopping.set()
        self._wake.set()
        keeper.join(_KEEPER_SECONDS * 2)  # the keeper may be waiting for a router
        for _, channel in self._channels:
            channel.close()
        self._sender.close()
        if self._connection is not None:
            self._connection.close()
        if self._failure is not None:
            raise self._failure

    def _in_order(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the event and waiting ones, with feedback first.

        Inputs are read in turns, so a result may overtake feedback that was sent before it.
        """
        events = [event]
        if any(isinstance(channel, ActionHost) for _, channel in self._channels):
            while len(events) < _MAX_REORDERED and (more := self._node.try_recv()) is not None:
                events.append(more)
            events.sort(key=lambda one: one["type"] != "INPUT" or one["id"] != _FEEDBACK)
        return events

    def _take(self, event: dict[str, Any]) -> bool:
        """Process an event; return False if it is the last one."""
        if event["type"] == "INPUT":
            for port, channel in self._channels:
                if port in (event["id"], _ANY):
                    channel.receive(event["id"], event["value"], event["metadata"])
        elif event["type"] == "STOP":
            if event.get("id") == "ALL_INPUTS_CLOSED":
                self._finish()
            return False
        return True

    def _finish(self) -> None:
        """Wait for requests and goals in progress; each channel limits the time."""
        while self._failure is None and any(
            channel.busy_until() > time.monotonic() for _, channel in self._channels
        ):
            self._stopping.wait(_FINISH_SECONDS)

    def _keep(self) -> None:
        try:
            choice: Choice | None = _choice(self._settings)
            while choice is not None:
                choice = self._serve(choice)
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self._failure = error

    def _serve(self, choice: Choice) -> Choice | None:
        """Serve over a transport; return another one to use, or None at the end."""
        logger.info("transport %s: %s", choice.kind, choice.reason)
        transport = self._settings.get("transport") or {}
        self._connection = connection = connect(
            choice.kind,
            config=transport.get("config_uri", ""),
            profile=transport.get("compatibility"),
            on_state=self._router_changed,
            on_graph=self._wake.set,
        )
        name = self._settings.get("node_name") or node_name(self._node.node_id)
        node = RosNode(connection, name, self._settings.get("namespace", "/"))
        if choice.kind == "zenoh":
            serve_descriptions(node, self._types.description)
        is_settled, probed_at = not choice.waits, time.monotonic()
        while not self._stopping.is_set():
            found = [one.update(node, connection.graph) for _, one in self._channels]
            is_settled = is_settled or any(
                one.has_met(node, connection.graph) for _, one in self._channels
            )
            self._show([self._router if is_settled else choice.waits, *found])
            self._show_graph(connection, node.full_name)
            for _, one in self._channels:
                one.warn_of_drops()
            if not is_settled and time.monotonic() >= probed_at + _PROBE_SECONDS:
                probed_at = time.monotonic()
                if router_answers():
                    self._disconnect(connection)
                    return choose_transport(os.environ)
            self._wake.wait(_KEEPER_SECONDS)
            self._wake.clear()
        return None

    def _disconnect(self, connection: RosConnection) -> None:
        connection.close()
        for _, channel in self._channels:
            channel.reset()

    def _router_changed(self, waiting: str | None) -> None:
        self._router = waiting
        if self._connection is None:  # it is still connecting, which may take long
            self._show([waiting])
        self._wake.set()

    def _show_graph(self, connection: RosConnection, name: str) -> None:
        """Send a changed graph to the page, at most once in _GRAPH_SECONDS."""
        changes, now = connection.graph.changes, time.monotonic()
        if changes != self._shown_changes and now >= self._shown_at + _GRAPH_SECONDS:
            self._shown_changes, self._shown_at = changes, now
            summary = connection.graph.summary(name, dds=connection.kind == "dds")
            self._node.report_details(summary)

    def _show(self, found: Sequence[Waiting]) -> None:
        """Report the conditions that the bridge waits for, for the lists of dora."""
        waiting = waiting_text(found)
        if waiting is None:
            self._since = time.monotonic()
        elif self._connection is not None and time.monotonic() - self._since < _PATIENCE_SECONDS:
            return  # the conditions may be met soon
        if waiting != self._waiting:
            self._waiting = waiting
            self._node.report_waiting(waiting)


def _choice(settings: Mapping[str, Any]) -> Choice:
    transport = settings.get("transport") or {}
    if "kind" in transport:
        return Choice(transport["kind"], "the dataflow file names it")
    if "topics" not in settings:
        return Choice("zenoh", "services and actions need it")
    return choose_transport(os.environ, config=transport.get("config_uri", ""))


def _channels(
    settings: Mapping[str, Any], sender: BridgeSender, types: Types
) -> list[tuple[str, BridgeChannel]]:
    """Return the channels, each with its input: `_ANY` for all, empty for none."""
    if "topics" not in settings:
        kinds: Mapping[tuple[bool, str], type[BridgeChannel]] = {
            (True, "client"): ServiceCaller,
            (True, "server"): ServiceHost,
            (False, "client"): ActionCaller,
            (False, "server"): ActionHost,
        }
        kind = kinds["service" in settings, settings["role"]]
        return [(_ANY, kind(settings, sender, types))]
    found: list[tuple[str, BridgeChannel]] = []
    for topic in settings["topics"]:
        publishes = topic.get("direction") == "publish"
        made = (PublishedTopic if publishes else SubscribedTopic)(
            {"qos": settings.get("qos"), **topic}, sender, types
        )
        found.append((topic["input"] if publishes else "", made))
    return found


def main() -> None:
    """Run the bridge of the node that started this process."""
    settings = json.loads(os.environ[SETTINGS])
    with DoraNode() as node:
        Bridge(node, settings).run()
