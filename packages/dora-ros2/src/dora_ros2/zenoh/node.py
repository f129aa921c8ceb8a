"""Nodes of ROS and their endpoints: publishers, subscriptions, service servers and clients.

All methods may be called from any thread. Messages are CDR bytes, with their header.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa
import zenoh
import zenoh.ext

from dora_ros2.errors import MalformedMessage, NoReply, SessionError
from dora_ros2.zenoh.graph import Profile
from dora_ros2.zenoh.session import Session, direct, outside_callback
from dora_ros2.zenoh.tokens import (
    NO_HASH,
    OLD_ATTACHMENT,
    Attachment,
    EndpointToken,
    Kind,
    NodeToken,
    Qos,
    WireType,
    absolute,
    check_namespace,
    check_node_name,
    data_key,
    decode_attachment,
    gid,
)

Payload = bytes | bytearray
OnMessage = Callable[[bytes, Attachment | None], None]
_A = TypeVar("_A")
_B = TypeVar("_B")
REQUEST_SECONDS = 30.0
_UNDECLARE_SECONDS = 3.0
_HEARTBEAT_SECONDS = 0.5
_JOIN_SECONDS = 2.0
"""Longest wait for the messages that a publisher kept before it was discovered."""
_NO_LIMIT = 365 * 86400.0
"""Seconds of a request that never times out."""
_SERVICE_QOS = Qos()
_logger = logging.getLogger(__name__)


class _Declared(Protocol):
    def undeclare(self) -> Any: ...


class Node:
    """A node in the ROS graph."""

    has_services: ClassVar = True

    def __init__(self, session: Session, name: str, namespace: str = "/") -> None:
        """Announce the node. Raises InvalidName, SessionError."""
        self.name = check_node_name(name)
        self.namespace = check_namespace(namespace)
        self.session = session
        self.token = NodeToken(
            session.domain, session.zid, session.number(), self.namespace, name, session.enclave
        )
        self.closed = False
        self._lock = threading.Lock()
        self.endpoints: set[Endpoint] = set()
        self._announcement = session.raw.liveliness().declare_token(str(self.token))
        session.nodes.add(self)

    @property
    def full_name(self) -> str:
        """Namespace and name, as ``/robot1/camera``."""
        return self.token.full_name

    def publisher(self, topic: str, type: WireType, qos: Qos | None = None) -> Publisher:
        """Announce a publisher. Raises InvalidName, SessionError."""
        return Publisher(self, topic, type, qos or Qos())

    def subscription(
        self, topic: str, type: WireType, on_message: OnMessage, qos: Qos | None = None
    ) -> Subscription:
        """Call `on_message` with each message and its attachment. Raises InvalidName, SessionError.

        The attachment is None if the message has none that can be read.
        """
        return Subscription(self, topic, type, on_message, qos or Qos())

    def service_server(
        self, service: str, type: WireType, on_request: Callable[[Request], None]
    ) -> ServiceServer:
        """Call `on_request` with each request. Raises InvalidName, SessionError."""
        return ServiceServer(self, service, type, on_request)

    def service_client(self, service: str, type: WireType) -> ServiceClient:
        """Announce a client. Raises InvalidName, SessionError."""
        return ServiceClient(self, service, type)

    def close(self) -> None:
        """Close all endpoints and withdraw the node; again does nothing."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        for endpoint in list(self.endpoints):
            endpoint.close()
        _undeclare(self._announcement)
        self.session.nodes.discard(self)

    def profile_changed(self) -> None:
        """Announce the endpoints again, with or without hashes of types."""
        for endpoint in list(self.endpoints):
            endpoint.profile_changed()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Endpoint:
    """What publishers, subscriptions, servers and clients share: key, token and GID."""

    kind: ClassVar[Kind]
    noun: ClassVar[str]

    def __init__(self, node: Node, name: str, type: WireType, qos: Qos) -> None:
        if node.closed:
            raise SessionError(f"the node {node.full_name} is closed")
        self.node = node
        self.name = absolute(name, node.namespace, node.name)
        self.type = type
        self.qos = qos
        self.closed = False
        self._lock = threading.RLock()
        self._sequence = count(1)
        self._warned = False
        self._announce()
        node.endpoints.add(self)
        self.profile_changed()  # in the meantime

    def profile_changed(self) -> None:
        """Announce the endpoint again, with or without the hash."""
        with self._lock:
            if not self.closed and self.token.hash != self._hash():
                for declared in reversed(self._declared):
                    _undeclare(declared)
                self._announce()

    def close(self) -> None:
        """Withdraw the endpoint; again does nothing. A call of its callback may still end after."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        *declared, token = self._declared
        _undeclare(token)
        self._end_requests()
        for one in reversed(declared):
            _undeclare(one)
        self.node.endpoints.discard(self)

    def _end_requests(self) -> None:
        """End what waits for a reply; the token is withdrawn already."""

    def _hash(self) -> str:
        humble = self.node.session.profile is Profile.HUMBLE
        return NO_HASH if humble else self.type.hash

    def _announce(self) -> None:
        session, dds_name, type_hash = self.node.session, self.type.dds_name, self._hash()
        self.token = EndpointToken(
            self.node.token, session.number(), self.kind, self.name, dds_name, type_hash, self.qos
        )
        self.gid = gid(str(self.token))
        self.key = data_key(session.domain, self.name, dds_name, type_hash)
        # The token comes last: who sees it may send at once.
        self._declared = self._declare(session.raw, self.qos)
        self._declared.append(session.raw.liveliness().declare_token(str(self.token)))

    def _declare(self, session: zenoh.Session, qos: Qos) -> list[_Declared]:
        raise NotImplementedError

    def _attachment(self) -> Attachment:
        return Attachment(next(self._sequence), time.time_ns(), self.gid)

    def _read_attachment(self, data: zenoh.ZBytes | None) -> Attachment | None:
        """Return the attachment of a message; warn once of one that is old or unknown."""
        problem, attachment = "no attachment", None
        if data is not None:
            try:
                attachment = decode_attachment(data.to_bytes())
                problem = OLD_ATTACHMENT if attachment.old else ""
            except MalformedMessage as error:
                problem = f"an unknown attachment ({error})"
        if problem:
            self._warn_once("%s: received a message with %s", self.name, problem)
        return attachment

    def _warn_once(self, *message: object) -> None:
        if not self._warned:
            self._warned = True
            _logger.warning(*message)

    def _check_open(self) -> None:
        if self.closed:
            raise SessionError(f"the {self.noun} of {self.name} is closed")


class Publisher(Endpoint):
    """Publishes messages to a topic."""

    kind = Kind.PUBLISHER
    noun = "publisher"

    def __init__(self, node: Node, name: str, type: WireType, qos: Qos) -> None:
        keeps = qos.transient_local and node.session.follows
        self._kept: deque[tuple[Payload, Attachment]] = deque(
            maxlen=(_samples(qos) if keeps else 0)
        )
        super().__init__(node, name, type, qos)

    def publish(self, payload: Payload, *, time_ns: int | None = None) -> None:
        """Send a message; `time_ns`: its source time (default: now). Raises SessionError.

        Only a reliable publisher that keeps all messages waits for slow connections.
        """
        with self._lock:
            self._check_open()
            attachment = self._attachment()
            if time_ns is not None:
                attachment = replace(attachment, time_ns=time_ns)
            self._kept.append((payload, attachment))
            self._put(payload, attachment)

    def profile_changed(self) -> None:
        """Announce the publisher again, and send again what late joiners should receive."""
        with self._lock:
            before = self.gid
            super().profile_changed()
            if self.gid != before:
                for payload, attachment in self._kept:
                    self._put(payload, replace(attachment, gid=self.gid))

    def _put(self, payload: Payload, attachment: Attachment) -> None:
        try:
            self._publisher.put(payload, attachment=attachment.encode())
        except zenoh.ZError as error:
            raise SessionError(f"cannot publish to {self.name}: {error}") from None

    def _declare(self, session: zenoh.Session, qos: Qos) -> list[_Declared]:
        control = zenoh.CongestionControl
        block = qos.reliable and qos.keep_all
        congestion = control.BLOCK if block else control.DROP
        self._publisher: zenoh.Publisher | zenoh.ext.AdvancedPublisher
        if not qos.transient_local:
            self._publisher = session.declare_publisher(self.key, congestion_control=congestion)
            return [self._publisher]
        misses = zenoh.ext.MissDetectionConfig(
            heartbeat=None, sporadic_heartbeat=_HEARTBEAT_SECONDS
        )
        self._publisher = zenoh.ext.declare_advanced_publisher(
            session,
            self.key,
            congestion_control=congestion,
            cache=zenoh.ext.CacheConfig(_samples(qos)),
            publisher_detection=True,
            sample_miss_detection=misses if qos.reliable else None,
        )
        return [self._publisher]


class Subscription(Endpoint):
    """Receives the messages of a topic, those of each publisher in their order."""

    kind = Kind.SUBSCRIPTION
    noun = "subscription"

    def __init__(
        self, node: Node, name: str, type: WireType, on_message: OnMessage, qos: Qos
    ) -> None:
        self._on_message = on_message
        self._joining: dict[bytes, _Joining] = {}
        self._joined: set[bytes] = set()
        self._delivery = threading.RLock()
        super().__init__(node, name, type, qos)

    def _declare(self, session: zenoh.Session, qos: Qos) -> list[_Declared]:
        handler = direct(self._received)
        if not qos.transient_local:
            return [session.declare_subscriber(self.key, handler)]
        return [
            zenoh.ext.declare_advanced_subscriber(
                session,
                self.key,
                handler,
                history=zenoh.ext.HistoryConfig(
                    detect_late_publishers=True, max_samples=_samples(qos)
                ),
                recovery=zenoh.ext.RecoveryConfig(periodic_queries=None, heartbeat=True)
                if qos.reliable
                else None,
                subscriber_detection=True,
            )
        ]

    def _received(self, sample: zenoh.Sample) -> None:
        if self.closed or sample.kind != zenoh.SampleKind.PUT:
            return
        attachment = self._read_attachment(sample.attachment)
        message = (sample.payload.to_bytes(), attachment)
        if attachment is None or not self.qos.transient_local or _samples(self.qos) == 1:
            self._on_message(*message)
            return
        with self._delivery:
            sender = attachment.gid
            is_new = sender not in self._joined
            self._joined.add(sender)
            if is_new and attachment.sequence > 1:
                self._joining[sender] = _Joining(time.monotonic() + _JOIN_SECONDS)
            joining = self._joining.get(sender)
            if joining is None:
                self._on_message(*message)
                return
            joining.messages[attachment.sequence] = message
        if is_new:
            self._query_kept(sender)

    def _query_kept(self, sender: bytes) -> None:
        """Query what a publisher kept before the first message that arrived of it.

        While a connection is new, messages may overtake the announcement of the publisher's cache.
        Zenoh then drops those in the cache, which are older.
        """
        joining, answered = self._joining[sender], threading.Event()

        def replied(reply: zenoh.Reply) -> None:
            if reply.ok is not None and reply.ok.attachment is not None:
                attachment = decode_attachment(reply.ok.attachment.to_bytes())
                if attachment.gid == sender:
                    answered.set()
                    kept = (reply.ok.payload.to_bytes(), attachment)
                    joining.messages.setdefault(attachment.sequence, kept)

        def ended() -> None:
            token = self.node.session.graph.sender(sender)
            keeps = token is None or token.qos.transient_local
            if not answered.is_set() and keeps and time.monotonic() < joining.until:
                timer = threading.Timer(_JOIN_SECONDS / 10, self._query_kept, [sender])
                timer.daemon = True
                timer.start()
                return
            with self._delivery:
                for _, message in sorted(self._joining.pop(sender).messages.items()):
                    if not self.closed:
                        self._on_message(*message)

        try:
            self.node.session.raw.get(
                f"{self.key}/@adv/**?_max={_samples(self.qos)};_anyke",
                direct(replied, ended),
                target=zenoh.QueryTarget.ALL,
                consolidation=zenoh.ConsolidationMode.NONE,
                accept_replies=zenoh.ReplyKeyExpr.ANY,
                timeout=_JOIN_SECONDS,
            )
        except (zenoh.ZError, SessionError):  # closed meanwhile
            self._joining.pop(sender, None)


@dataclass
class _Joining:
    """Messages of a publisher by number, until those before its first one are here, or a time."""

    until: float
    messages: dict[int, tuple[bytes, Attachment | None]] = field(default_factory=dict)


class Request:
    """A request to a service; reply once, from any thread, or close it."""

    def __init__(self, server: ServiceServer, query: zenoh.Query) -> None:
        self.payload = query.payload.to_bytes() if query.payload is not None else b""
        self.attachment = server._read_attachment(query.attachment)
        self._server = server
        self._query: zenoh.Query | None = query

    @property
    def value(self) -> pa.StructArray:
        """The decoded request. Raises MalformedMessage."""
        kind: Any = self._server.type
        return kind.request.decode(self.payload)

    def answer(self, value: Any) -> None:
        """Encode and `reply`. Raises MalformedMessage."""
        kind: Any = self._server.type
        self.reply(kind.response.encode(value))

    def reply(self, payload: Payload) -> None:
        """Send the response; nothing if the request is closed or was replied to."""
        own = self._server._attachment()
        asked = self.attachment or own
        attachment = Attachment(asked.sequence, own.time_ns, asked.gid).encode()
        self._finish(lambda query: query.reply(self._server.key, payload, attachment=attachment))

    def fail(self, reason: str) -> None:
        """Send an error, which clients of ROS report as a missing reply."""
        self._finish(lambda query: query.reply_err(reason))

    def close(self) -> None:
        """End the request without a response."""
        self._finish(lambda query: None)

    def _finish(self, send: Callable[[zenoh.Query], None]) -> None:
        with self._server._lock:
            query, self._query = self._query, None
        self._server.pending.discard(self)
        if query is not None:
            with contextlib.suppress(zenoh.ZError):
                send(query)
            query.drop()  # type: ignore[no-untyped-call]


class ServiceServer(Endpoint):
    """Receives the requests of a service; the callback or another thread replies to each."""

    kind = Kind.SERVER
    noun = "server"

    def __init__(
        self, node: Node, name: str, type: WireType, on_request: Callable[[Request], None]
    ) -> None:
        self._on_request = on_request
        self.pending: set[Request] = set()
        super().__init__(node, name, type, _SERVICE_QOS)

    def _end_requests(self) -> None:
        for request in list(self.pending):
            request.close()

    def _declare(self, session: zenoh.Session, qos: Qos) -> list[_Declared]:
        return [session.declare_queryable(self.key, direct(self._received), complete=True)]

    def _received(self, query: zenoh.Query) -> None:
        request = Request(self, query)
        if self.closed:
            request.close()
            return
        self.pending.add(request)
        try:
            self._on_request(request)
        except Exception as error:
            request.fail(str(error))
            if not isinstance(error, MalformedMessage):
                raise
            self._warn_once("%s: received a request that cannot be read: %s", self.name, error)


class ServiceClient(Endpoint):
    """Sends requests to a service. Any number of them may wait for a reply."""

    kind = Kind.CLIENT
    noun = "client"

    def __init__(self, node: Node, name: str, type: WireType) -> None:
        self._pending: set[Future[bytes]] = set()
        self._cancellation = zenoh.CancellationToken()
        super().__init__(node, name, type, _SERVICE_QOS)

    @property
    def available(self) -> bool:
        """Whether a server with this name and type is known."""
        if self.closed:
            return False
        status: Any = self._querier.matching_status
        return bool(status.matching)

    def wait_for_server(self, seconds: float) -> bool:
        """Wait until a server is available; return whether it is. Not from a callback."""
        return self.node.session.wait_for(lambda _: self.available, seconds)

    def ask(self, value: Any, *, timeout: float | None = REQUEST_SECONDS) -> Future[pa.StructArray]:
        """Encode and `call`; return a future of the decoded response. Raises MalformedMessage."""
        kind: Any = self.type
        return then(self.call(kind.request.encode(value), timeout=timeout), kind.response.decode)

    def call(self, payload: Payload, *, timeout: float | None = REQUEST_SECONDS) -> Future[bytes]:
        """Send a request; return a future of the response. Raises SessionError.

        The future fails with NoReply: without a server, after `timeout` seconds (None: never),
        or if the server disappears.
        """
        self._check_open()
        session = self.node.session.raw
        attachment = self._attachment()
        future: Future[bytes] = Future()
        self._pending.add(future)
        seconds = _NO_LIMIT if timeout is None else timeout
        started = time.monotonic()

        def replied(reply: zenoh.Reply) -> None:
            if reply.ok is not None:
                read = self._read_attachment(reply.ok.attachment)
                if read is None or (read.sequence, read.gid) == (attachment.sequence, self.gid):
                    _settle(future, reply.ok.payload.to_bytes())
            elif reply.err is not None and reply.err.payload.to_bytes() != b"Timeout":
                text = reply.err.payload.to_bytes().decode(errors="replace")
                _settle(future, NoReply(f"{self.name}: the server replied with an error: {text}"))

        def ended() -> None:
            self._pending.discard(future)
            if not future.done():
                expired = time.monotonic() - started >= seconds
                why = f"no reply within {seconds:g} s" if expired else self._why_not()
                _settle(future, NoReply(f"{self.name}: {why}"))

        try:
            session.get(
                self.key,
                direct(replied, ended),
                target=zenoh.QueryTarget.ALL_COMPLETE,
                consolidation=zenoh.ConsolidationMode.NONE,
                payload=payload,
                attachment=attachment.encode(),
                timeout=seconds,
                cancellation_token=self._cancellation,
            )
        except zenoh.ZError as error:
            self._pending.discard(future)
            raise SessionError(f"cannot send a request to {self.name}: {error}") from None
        return future

    def close(self) -> None:
        """Withdraw the client; requests that wait fail."""
        super().close()
        pending = list(self._pending)
        for future in pending:
            _settle(future, NoReply(f"{self.name}: the client was closed"))
        if pending:
            outside_callback(self._cancellation.cancel)

    def _declare(self, session: zenoh.Session, qos: Qos) -> list[_Declared]:
        # Requests use the session, for a time limit of their own; this finds servers.
        self._querier = session.declare_querier(self.key, target=zenoh.QueryTarget.ALL_COMPLETE)
        changed = self.node.session.notify
        listener = self._querier.declare_matching_listener(direct(lambda _: changed()))
        return [self._querier, listener]

    def _servers(self, *, same: bool) -> list[EndpointToken]:
        own = self.token
        return [
            server
            for server in self.node.session.graph.endpoints(Kind.SERVER, name=self.name)
            if not same or (server.dds_name, server.hash) == (own.dds_name, own.hash)
        ]

    def _why_not(self) -> str:
        if self.closed:
            return "the client was closed"
        if self._servers(same=True):
            return "the server ended before it replied"
        others = self._servers(same=False)
        if not others:
            return "no server, or it ended before it replied"
        other = others[0]
        return (
            f"the server in {other.node.full_name} has the type {other.type} {other.hash},"
            f" this client {self.token.type} {self.token.hash}"
        )


def answering(answer: Callable[[Any], Mapping[str, Any]]) -> Callable[[Request], None]:
    """Return a callback that answers each request, a dictionary, with a dictionary."""
    return lambda request: request.answer(answer(request.value[0].as_py()))


def _samples(qos: Qos) -> int:
    """Return how many messages a transient local endpoint keeps or requests."""
    return 1_000_000 if qos.keep_all else qos.depth


def then(source: Future[_A], convert: Callable[[_A], _B | Future[_B]]) -> Future[_B]:
    """Return a future of what `convert` makes of the value of another, or of the future it returns.

    Errors pass through.
    """
    target: Future[_B] = Future()

    def done(done: Future[_A]) -> None:
        try:
            value = convert(done.result())
        except Exception as error:  # noqa: BLE001 - it is the outcome
            _settle(target, error)
            return
        if isinstance(value, Future):
            value.add_done_callback(
                lambda inner: _settle(target, inner.exception() or inner.result())
            )
        else:
            _settle(target, value)

    source.add_done_callback(done)
    return target


def _settle(future: Future[_A], outcome: _A | BaseException) -> None:
    """Complete a future, unless it is complete or was cancelled."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _undeclare(declared: _Declared) -> None:
    """Withdraw a declaration; its session may be closed.

    Zenoh waits for calls of the callback that are in progress, rarely without end: it gets limited
    time.
    """

    def withdraw() -> None:
        with contextlib.suppress(zenoh.ZError):
            declared.undeclare()

    thread = threading.Thread(target=withdraw, name="Dummy-undeclare", daemon=True)
    thread.start()
    thread.join(_UNDECLARE_SECONDS)
