"""Publishers, subscriptions, service servers and clients over Zenoh.

Callbacks run on Zenoh's threads. They must not wait; an exception is logged.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import zenoh
import zenoh.ext

from dora_ros2.backlog import KEEP_ALL, Backlog
from dora_ros2.connection import OnMessage, Payload, Publisher, RosConnection, RosEndpoint, RosNode
from dora_ros2.errors import MalformedMessage, NoReply, SessionError
from dora_ros2.zenoh.graph import Profile
from dora_ros2.zenoh.tokens import (
    NO_HASH,
    OLD_ATTACHMENT,
    Attachment,
    EndpointToken,
    Kind,
    Qos,
    WireType,
    data_key,
    decode_attachment,
    gid,
)

_A = TypeVar("_A")
_B = TypeVar("_B")
REQUEST_SECONDS = 30.0
"""Default limit for the reply to a request."""
_UNDECLARE_SECONDS = 3.0
"""Longest wait for callbacks of a closed endpoint."""
_HEARTBEAT_SECONDS = 0.5
"""Interval at which a reliable publisher announces its last number."""
_JOIN_SECONDS = 2.0
"""Longest wait for the messages that a publisher kept before it was discovered."""
_SENDERS = 1000
"""Publishers that a transient local subscription remembers."""
_NO_LIMIT = 365 * 86400.0
"""Timeout in seconds of a request without a limit."""
_SERVICE_QOS = Qos()
_logger = logging.getLogger(__name__)
_callback = threading.local()
_ensure = ctypes.pythonapi.PyGILState_Ensure
_ensure.restype = ctypes.c_int
_ensure.argtypes = ()


def _keep_thread_state() -> None:
    """Keep the Python thread state of a thread of Zenoh, otherwise each callback creates one.

    This takes one PyGILState_Ensure without a release; the attribute is stored in that state.
    """
    if not hasattr(_callback, "state"):
        _callback.state = _ensure()


def outside_callback(call: Callable[[], None]) -> None:
    """Call a function that waits for callbacks of Zenoh; within a callback, in a new thread."""
    if _inside_callback():
        threading.Thread(target=call, name="ros2-outside").start()
    else:
        call()


def _inside_callback() -> bool:
    return getattr(_callback, "active", False)


def direct(
    call: Callable[[Any], object], drop: Callable[[], None] | None = None
) -> zenoh.handlers.Callback[Any]:
    """Return a callback without a thread of its own; errors are logged."""

    def guarded(*value: Any) -> None:
        _keep_thread_state()
        outer = _inside_callback()
        _callback.active = True
        try:
            (call if value else drop)(*value)  # type: ignore[misc]
        except Exception:
            _logger.exception("error in a callback of Zenoh")
        finally:
            _callback.active = outer

    return zenoh.handlers.Callback(guarded, drop and guarded, indirect=False)


class _Declared(Protocol):
    def undeclare(self) -> Any: ...


class ZenohConnection(RosConnection):
    """Interface of a session for its endpoints."""

    profile: Profile
    """Profile of the user or of the other nodes; a change updates announced endpoints."""
    follows: bool
    """Whether the profile follows the other nodes."""
    _zenoh: zenoh.Session

    @property
    def raw(self) -> zenoh.Session:
        """The open session. Raises SessionError."""
        if self.closed:
            raise SessionError("the session is closed")
        return self._zenoh

    def notify(self) -> None:
        """Check the conditions of all `wait_for` again."""
        with self._changed:
            self._changed.notify_all()


class ZenohEndpoint(RosEndpoint):
    """Base of publishers, subscriptions, servers and clients: key, token and GID."""

    def __init__(self, node: RosNode, name: str, type: WireType, qos: Qos) -> None:
        self.session: ZenohConnection = node.connection  # type: ignore[assignment]
        self._sequence = count(1)
        self._warned = False
        super().__init__(node, name, type, qos)

    def refresh(self) -> None:
        """Announce the endpoint again if its token must get or lose the hash."""
        with self._lock:
            if not self.closed and self.token.hash != self._hash():
                for declared in reversed(self._declared):
                    undeclare(declared)
                self._announce()

    def _withdraw(self) -> None:
        *declared, token = self._declared
        undeclare(token)
        self._end_requests()
        for one in reversed(declared):
            undeclare(one)

    def _end_requests(self) -> None:
        """End requests that wait for a reply; the token was withdrawn before."""

    def _hash(self) -> str:
        return NO_HASH if self.session.profile is Profile.HUMBLE else self.type.hash

    def _announce(self) -> None:
        session, dds_name, type_hash = self.session, self.type.dds_name, self._hash()
        self.token = EndpointToken(
            self.node.token, session.number(), self.kind, self.name, dds_name, type_hash, self.qos
        )
        self.gid = gid(str(self.token))
        self.key = data_key(session.domain, self.name, dds_name, type_hash)
        # Declare the token last, because peers send once they receive it.
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


class ZenohPublisher(ZenohEndpoint, Publisher):
    """Publishes messages to a topic.

    Only a reliable publisher that keeps all messages waits for slow connections.
    """

    def __init__(self, node: RosNode, name: str, type: WireType, qos: Qos) -> None:
        session: ZenohConnection = node.connection  # type: ignore[assignment]
        keeps = qos.transient_local and session.follows
        self._kept: Backlog[tuple[Payload, Attachment]] = Backlog(_samples(qos) if keeps else 0)
        super().__init__(node, name, type, qos)

    def publish(self, payload: Payload) -> None:
        with self._lock:
            self._check_open()
            attachment = self._attachment()
            self._kept.append((payload, attachment), len(payload))
            self._put(payload, attachment)

    def refresh(self) -> None:
        """Announce the publisher again, and send again what late joiners should receive."""
        with self._lock:
            before = self.gid
            super().refresh()
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


class Subscription(ZenohEndpoint):
    """Receives the messages of a topic, those of each publisher in their order."""

    kind = Kind.SUBSCRIPTION

    def __init__(
        self, node: RosNode, name: str, type: WireType, qos: Qos, on_message: OnMessage
    ) -> None:
        self._on_message = on_message
        self._joining: dict[bytes, _Joining] = {}
        self._joined: dict[bytes, None] = {}
        """Publishers of which messages arrived, the last one at the end."""
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
            self._joined.pop(sender, None)
            self._joined[sender] = None
            if len(self._joined) > _SENDERS:
                del self._joined[next(iter(self._joined))]
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
        """Query the messages that a publisher kept before the first received one.

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
            token = self.session.graph.sender(sender)
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
            self.session.raw.get(
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
    """Held messages of a publisher by number, until its earlier messages arrive or a deadline."""

    until: float
    messages: dict[int, tuple[bytes, Attachment | None]] = field(default_factory=dict)


class ServiceRequest:
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


class ServiceServer(ZenohEndpoint):
    """Receives the requests of a service; the callback or another thread replies to each."""

    kind = Kind.SERVER

    def __init__(
        self, node: RosNode, name: str, type: WireType, on_request: Callable[[ServiceRequest], None]
    ) -> None:
        self._on_request = on_request
        self.pending: set[ServiceRequest] = set()
        super().__init__(node, name, type, _SERVICE_QOS)

    def _end_requests(self) -> None:
        for request in list(self.pending):
            request.close()

    def _declare(self, session: zenoh.Session, qos: Qos) -> list[_Declared]:
        return [session.declare_queryable(self.key, direct(self._received), complete=True)]

    def _received(self, query: zenoh.Query) -> None:
        request = ServiceRequest(self, query)
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


class ServiceClient(ZenohEndpoint):
    """Sends requests to a service. Any number of them may wait for a reply."""

    kind = Kind.CLIENT

    def __init__(self, node: RosNode, name: str, type: WireType) -> None:
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
        return self.session.wait_for(lambda _: self.available, seconds)

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
        session = self.session.raw
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
        changed = self.session.notify
        listener = self._querier.declare_matching_listener(direct(lambda _: changed()))
        return [self._querier, listener]

    @property
    def mismatch(self) -> str | None:
        """Why none of the known servers fits; None if one does or none is known."""
        own, servers = self.token, self.session.graph.endpoints(Kind.SERVER, name=self.name)
        if any((one.dds_name, one.hash) == (own.dds_name, own.hash) for one in servers):
            return None
        for other in servers:
            return (
                f"the server in {other.node.full_name} has the type {other.type} {other.hash},"
                f" this client {own.type} {own.hash}"
            )
        return None

    def _why_not(self) -> str:
        if self.closed:
            return "the client was closed"
        return self.mismatch or "no server, or it ended before it replied"


def answering(answer: Callable[[Any], Mapping[str, Any]]) -> Callable[[ServiceRequest], None]:
    """Return a callback that answers each request, a dictionary, with a dictionary."""
    return lambda request: request.answer(answer(request.value[0].as_py()))


def _samples(qos: Qos) -> int:
    """Return how many messages a transient local endpoint keeps or requests."""
    return KEEP_ALL if qos.keep_all else qos.depth


def then(source: Future[_A], convert: Callable[[_A], _B | Future[_B]]) -> Future[_B]:
    """Return a future of `convert` applied to the value of another; it may return a future.

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


def undeclare(declared: _Declared) -> None:
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
