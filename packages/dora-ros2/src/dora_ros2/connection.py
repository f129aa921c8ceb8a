"""Connections to a ROS domain, nodes and endpoints: what Zenoh and DDS share.

All methods may be called from any thread. Messages are CDR bytes, with their header.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, ClassVar, Literal, Self

from dora_ros2.errors import SessionError
from dora_ros2.zenoh.graph import Graph
from dora_ros2.zenoh.tokens import (
    Attachment,
    EndpointToken,
    Kind,
    NodeToken,
    Qos,
    WireType,
    absolute,
    check_namespace,
    check_node_name,
    parse_domain,
)

Kinds = Literal["zenoh", "dds"]
Payload = bytes | bytearray
OnMessage = Callable[[bytes, Attachment | None], None]
OnRequest = Callable[[Any], None]
"""Called with a `dora_ros2.zenoh.endpoints.ServiceRequest`."""
_MISMATCH_SECONDS = 2.0
"""Seconds for a bridge to adopt the type of the other side before a mismatch is logged."""
_logger = logging.getLogger(__name__)


class RosConnection:
    """A ROS domain over Zenoh or DDS, its graph, and nodes in it.

    `on_graph` is called when nodes or endpoints appear or disappear.
    """

    kind: ClassVar[Kinds]
    publisher: ClassVar[Callable[..., Publisher]]
    subscription: ClassVar[Callable[..., RosEndpoint]]
    service_server: ClassVar[Callable[..., Any]]
    service_client: ClassVar[Callable[..., Any]]
    """The functions of `dora_ros2.zenoh.endpoints`; over DDS they raise SessionError."""
    id: str
    """Part of the tokens of its nodes."""
    enclave = ""

    def __init__(
        self, domain: int | None, environ: Mapping[str, str], on_graph: Callable[[], None] | None
    ) -> None:
        """Prepare the connection. Raises InvalidName if the domain is not valid."""
        named = environ.get("ROS_DOMAIN_ID", "")
        self.domain = parse_domain(named if domain is None else str(domain))
        self.graph = Graph()
        self.nodes: dict[RosNode, Any] = {}
        """The nodes of this process, and what announces each."""
        self.closed = False
        self.lock = threading.RLock()
        self._numbers = count()
        self._on_graph = on_graph
        self._changed = threading.Condition()
        self._warned: set[tuple[EndpointToken, EndpointToken]] = set()
        """Pairs of endpoints that do not match and were logged."""
        self._is_checking = False

    def number(self) -> str:
        """Return the next number of a node or endpoint."""
        return str(next(self._numbers))

    def wait_for(self, condition: Callable[[Graph], object], seconds: float) -> bool:
        """Wait until the graph meets a condition; return whether it does. Not from a callback."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: condition(self.graph), seconds))

    def check_matches(self) -> None:
        """Log, after a moment, which endpoints do not match those of this process; once each."""
        found = dict(self._mismatches())
        with self.lock:
            if not found or self._is_checking or self.closed:
                return
            self._is_checking = True
        timer = threading.Timer(_MISMATCH_SECONDS, self._log_mismatches, [found])
        timer.daemon = True
        timer.start()

    def _log_mismatches(self, before: Mapping[tuple[EndpointToken, EndpointToken], str]) -> None:
        if self.closed:
            return
        for pair, text in self._mismatches():
            if pair in before:
                self._warned.add(pair)
                _logger.warning(text)
        self._is_checking = False
        self.check_matches()

    def _mismatches(self) -> Iterator[tuple[tuple[EndpointToken, EndpointToken], str]]:
        for word, channels in (
            ("messages", self.graph.topics()),
            ("requests", self.graph.services()),
            ("goals", self.graph.actions()),
        ):
            for name, channel in channels.items():
                for offer, use, reason in channel.problems(dds=self.kind == "dds"):
                    ours = [one.node.zid == self.id for one in (offer, use)]
                    if any(ours) and (offer, use) not in self._warned:
                        other = use if ours[0] else offer
                        # messages go from the offer to the use, others in the opposite direction
                        way = "to" if ours[0] is (word == "messages") else "from"
                        text = f"{name}: no {word} {way} {other.node.full_name}: {reason}"
                        yield (offer, use), text

    def announce(self, node: RosNode) -> None:
        """Add a node to the graph. Raises SessionError."""
        raise NotImplementedError

    def withdraw(self, node: RosNode) -> None:
        """Remove a node from the graph."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all nodes and the connection; may be called at any time, and again."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
        for node in list(self.nodes):
            node.close()
        self._disconnect()

    def _disconnect(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RosNode:
    """A node in the ROS graph."""

    def __init__(self, connection: RosConnection, name: str, namespace: str = "/") -> None:
        """Announce the node. Raises InvalidName, SessionError."""
        self.name = check_node_name(name)
        self.namespace = check_namespace(namespace)
        self.connection = connection
        self.token = NodeToken(
            connection.domain,
            connection.id,
            connection.number(),
            self.namespace,
            name,
            connection.enclave,
        )
        self.closed = False
        self._lock = threading.Lock()
        self.endpoints: set[RosEndpoint] = set()
        connection.announce(self)

    @property
    def full_name(self) -> str:
        """Namespace and name, as ``/robot1/camera``."""
        return self.token.full_name

    @property
    def has_services(self) -> bool:
        """Whether services, actions and parameters are possible: not over DDS."""
        return self.connection.kind == "zenoh"

    def publisher(self, topic: str, type: WireType, qos: Qos | None = None) -> Publisher:
        """Announce a publisher. Raises InvalidName, SessionError."""
        return self.connection.publisher(self, topic, type, qos or Qos())

    def subscription(
        self, topic: str, type: WireType, on_message: OnMessage, qos: Qos | None = None
    ) -> RosEndpoint:
        """Call `on_message` with each message and its attachment. Raises InvalidName, SessionError.

        The attachment is None if the message has none that can be read; over DDS it has no number.
        """
        return self.connection.subscription(self, topic, type, qos or Qos(), on_message)

    def service_server(self, service: str, type: WireType, on_request: OnRequest) -> Any:
        """Call `on_request` with each request. Raises InvalidName, SessionError."""
        return self.connection.service_server(self, service, type, on_request)

    def service_client(self, service: str, type: WireType) -> Any:
        """Announce a client. Raises InvalidName, SessionError."""
        return self.connection.service_client(self, service, type)

    def check_open(self) -> None:
        """Raise SessionError if the node is closed."""
        if self.closed:
            raise SessionError(f"the node {self.full_name} is closed")

    def add(self, endpoint: RosEndpoint) -> None:
        """Close an endpoint with the node. Raises SessionError: the node is closed already."""
        with self._lock:
            self.check_open()
            self.endpoints.add(endpoint)

    def close(self) -> None:
        """Close all endpoints and withdraw the node; further calls have no effect."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        for endpoint in list(self.endpoints):
            endpoint.close()
        self.connection.withdraw(self)


class RosEndpoint:
    """A publisher, subscription, server or client."""

    kind: ClassVar[Kind]

    def __init__(self, node: RosNode, name: str, type: WireType, qos: Qos) -> None:
        node.check_open()
        self.node = node
        self.name = absolute(name, node.namespace, node.name)
        self.type = type
        self.qos = qos
        self.closed = False
        self._lock = threading.RLock()
        self._announce()
        try:
            node.add(self)
        except SessionError:
            self.close()
            raise
        self.refresh()
        # Its token was processed before the node listed the endpoint.
        node.connection.check_matches()

    def close(self) -> None:
        """Withdraw the endpoint; further calls have no effect. A callback may still be running."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self.node.endpoints.discard(self)
        self._withdraw()

    def refresh(self) -> None:
        """Announce the endpoint again if what it depends on has changed."""
        raise NotImplementedError

    def _announce(self) -> None:
        raise NotImplementedError

    def _withdraw(self) -> None:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self.closed:
            raise SessionError(f"the {self.kind.name.lower()} of {self.name} is closed")


class Publisher(RosEndpoint):
    """Publishes messages to a topic."""

    kind = Kind.PUBLISHER

    def publish(self, payload: Payload) -> None:
        """Send a message. Raises SessionError."""
        raise NotImplementedError
