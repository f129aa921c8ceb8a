"""A participant in a DDS domain of ROS: its graph, nodes, publishers and subscriptions.

All methods may be called from any thread. Callbacks run on the participant's thread, one after
another; an exception is logged. Messages are CDR bytes, with their header.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cyclonedds.builtin import (
    BuiltinDataReader,
    BuiltinTopicDcpsPublication,
    BuiltinTopicDcpsSubscription,
)
from cyclonedds.core import (
    DDSException,
    GuardCondition,
    InstanceState,
    Policy,
    Qos as DdsQos,
    ReadCondition,
    SampleState,
    ViewState,
    WaitSet,
)
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import make_idl_struct, types as idl
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from dora_ros2.connection import OnMessage, Payload, Publisher, RosConnection, RosEndpoint, RosNode
from dora_ros2.errors import MalformedMessage, SessionError
from dora_ros2.types import Types
from dora_ros2.zenoh.tokens import (
    NO_HASH,
    SECOND,
    Attachment,
    EndpointToken,
    Kind,
    NodeToken,
    Qos,
    WireType,
    gid,
    ros_type,
)

_UNKNOWN: Final = "_NODE_NAME_UNKNOWN_"
_SAMPLES_PER_TURN: Final = 64
"""Samples that are taken from one reader before the next reader."""
_FIRST_PORT: Final = 7400
"""First UDP port of domain 0."""
_PORTS: Final = 250
"""Number of UDP ports of each domain."""
_ACK_SECONDS: Final = 1
"""Longest wait in seconds for reliable readers when a publisher is closed."""
_CYCLONE: Final = b"\x01\x10"
"""Vendor at the beginning of each identifier."""
_REMATCH_SECONDS: Final = 3.0
"""Seconds for the heartbeat after a new match, including one repetition of a lost packet."""
# Fast DDS of ROS 2 Kilted describes lists in a way that Cyclone DDS refuses.
_BY_NAME: Final = (
    "<CycloneDDS><Domain><Compatibility><IgnoreTypeInformation>1.15,1.16,1.1</IgnoreTypeInformation>"
    "</Compatibility></Domain></CycloneDDS>"
)
_LOOPBACK: Final = (
    "<CycloneDDS><Domain><General><Interfaces><NetworkInterface address='127.0.0.1'/></Interfaces>"
    "<AllowMulticast>false</AllowMulticast></General><Discovery><SPDPInterval>1s</SPDPInterval>"
    "<ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>64</MaxAutoParticipantIndex>"
    "<Peers><Peer address='127.0.0.1'/></Peers></Discovery></Domain></CycloneDDS>"
)
_logger = logging.getLogger(__name__)


_INFINITE: Final = 2**63 - 1
"""Duration of DDS without end, in nanoseconds."""
_BLOCKING: Final = 100_000_000
"""Nanoseconds that a reliable writer waits for slow readers."""


def dds_qos(qos: Qos, type_hash: str) -> DdsQos:
    """Return the policies of an endpoint; its user data has the type hash, as in rmw."""
    history: Any = Policy.History.KeepAll if qos.keep_all else Policy.History.KeepLast(qos.depth)
    lease = _INFINITE if qos.lease is None else qos.lease
    liveliness = Policy.Liveliness.ManualByTopic if qos.manual_liveliness else (
        Policy.Liveliness.Automatic
    )  # fmt: skip
    policies = [
        Policy.Reliability.Reliable(_BLOCKING) if qos.reliable else Policy.Reliability.BestEffort,
        Policy.Durability.TransientLocal if qos.transient_local else Policy.Durability.Volatile,
        history,
        Policy.DurabilityService(0, history, -1, -1, -1),  # limits of what late readers receive
        Policy.Deadline(_INFINITE if qos.deadline is None else qos.deadline),
        Policy.Lifespan(_INFINITE if qos.lifespan is None else qos.lifespan),
        liveliness(lease),
        Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
        Policy.Userdata(f"typehash={type_hash};".encode()),
    ]
    return DdsQos(*policies)


def ros_qos(qos: DdsQos) -> Qos:
    """Return the quality of service of a discovered endpoint; its depth is not announced."""

    def held(policy: Any) -> Any:
        return qos[policy] if policy in qos else None  # noqa: SIM401 - not a dictionary

    def nanoseconds(policy: Any, name: str) -> int | None:
        value = getattr(held(policy), name, _INFINITE)
        return None if value >= _INFINITE else int(value)

    return Qos(
        reliable=not isinstance(held(Policy.Reliability), type(Policy.Reliability.BestEffort)),
        transient_local=held(Policy.Durability) not in (None, Policy.Durability.Volatile),
        deadline=nanoseconds(Policy.Deadline, "deadline"),
        lifespan=nanoseconds(Policy.Lifespan, "lifespan"),
        manual_liveliness=isinstance(held(Policy.Liveliness), Policy.Liveliness.ManualByTopic),
        lease=nanoseconds(Policy.Liveliness, "lease_duration"),
    )


def type_hash(qos: DdsQos) -> str:
    """Return the type hash in the user data of a discovered endpoint; Humble has none."""
    data = qos[Policy.Userdata].data if Policy.Userdata in qos else b""
    for entry in data.split(b";"):
        key, _, value = entry.partition(b"=")
        if key == b"typehash":
            return str(value.decode("ascii", "replace"))
    return NO_HASH


def carry(carrier: Any, payload: bytes | bytearray) -> Any:
    """Return a sample of a carrier."""
    sample = carrier.__new__(carrier)
    sample.payload = payload
    return sample


def carrier_of(kind: WireType) -> Any:
    """Return a DDS type whose samples have the CDR of a message in ``payload``.

    Only its name counts: Cyclone DDS is configured to ignore the fields of types.
    """
    carrier = make_idl_struct("Message", kind.dds_name, {"unused": idl.uint8}, dataclassify=False)
    carrier.serialize = lambda sample, **_: sample.payload
    carrier.deserialize = classmethod(lambda cls, data, **_: carry(cls, data))
    carrier.deserialize_key = classmethod(lambda cls, data, **_: None)
    return carrier


def configuration(environ: Mapping[str, str]) -> str:
    """Return the configuration of Cyclone DDS: its own or that of ``CYCLONEDDS_URI``, and ours.

    Only this computer is reached, unless ``CYCLONEDDS_URI`` is set, or
    ``ROS_AUTOMATIC_DISCOVERY_RANGE`` is ``SUBNET``.
    """
    reach = environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST").upper()
    network = environ.get("CYCLONEDDS_URI") or ("" if reach == "SUBNET" else _LOOPBACK)
    return f"{network},{_BY_NAME}" if network else _BY_NAME


@cache
def _domain(number: int, configuration: str) -> Domain:
    """Create a domain with a configuration; it lasts as long as the process."""
    return Domain(number, configuration)


def _receive_from_loopback(domain: int) -> None:
    """Bind the sockets of a domain to the loopback interface; Cyclone DDS receives on all."""
    device: Any = getattr(socket, "SO_BINDTODEVICE", None)
    first = _FIRST_PORT + domain * _PORTS
    for entry in Path("/proc/self/fd").iterdir() if device is not None else ():
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(entry.stat().st_mode):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as held:
                if held.type == socket.SOCK_DGRAM and held.family == socket.AF_INET:
                    host, port = held.getsockname()
                    if host == "0.0.0.0" and first <= port < first + _PORTS:
                        held.setsockopt(socket.SOL_SOCKET, device, b"lo")


class DdsEndpoint(RosEndpoint):
    """Base of publishers and subscriptions."""

    def __init__(self, node: RosNode, name: str, type: WireType, qos: Qos) -> None:
        self._participant: DdsParticipant = node.connection  # type: ignore[assignment]
        super().__init__(node, name, type, qos)

    def refresh(self) -> None:
        self._participant.publish_nodes()


class DdsPublisher(DdsEndpoint, Publisher):
    """Publishes messages to a topic."""

    def _announce(self) -> None:
        self._topic = self._participant.topic(f"rt{self.name}", self.type)
        qos = dds_qos(self.qos, self.type.hash)
        self._writer: Any = _made(DataWriter, self._participant, self._topic, qos)
        self.key: UUID = self._writer.get_guid()

    def publish(self, payload: Payload) -> None:
        writer = self._writer  # None once it is closed
        self._check_open()
        try:
            writer.write(carry(self._topic.data_type, payload))
        except DDSException as error:
            raise SessionError(f"cannot publish to {self.name}: {error}") from error

    def _withdraw(self) -> None:
        """Withdraw the publisher once readers have what it sent."""
        if self.qos.reliable:
            # If a reader is stuck, cyclonedds 11 raises AttributeError due to an undefined name.
            with contextlib.suppress(DDSException, AttributeError):
                self._writer.wait_for_acks(_ACK_SECONDS * SECOND)
        self._participant.publish_nodes()
        self._writer = None  # DDS deletes what has no references


class DdsSubscription(DdsEndpoint):
    """Receives the messages of a topic."""

    kind = Kind.SUBSCRIPTION

    def __init__(
        self, node: RosNode, name: str, type: WireType, qos: Qos, on_message: OnMessage
    ) -> None:
        self._on_message = on_message
        self._senders: dict[int, UUID] = {}
        self._second: Any = None
        self._second_until = 0.0
        super().__init__(node, name, type, qos)

    def _announce(self) -> None:
        self._reader = self._made(self.qos)
        self.key: UUID = self._reader.get_guid()
        self._condition: ReadCondition | None = self._participant.watch(self._reader)

    def _made(self, qos: Qos) -> Any:
        topic = self._participant.topic(f"rt{self.name}", self.type)
        return _made(DataReader, self._participant, topic, dds_qos(qos, self.type.hash))

    @property
    def is_rematching(self) -> bool:
        """Whether `rematch` has not ended."""
        return self._second is not None

    def rematch(self) -> None:
        """Get heartbeats of publishers that were just discovered; on the participant's thread.

        Cyclone DDS drops messages that began before the first heartbeat of their publisher. Fast
        DDS sends one at each match, but the first one before its publisher is known here, and
        ignores requests for another. So a second reader matches it for a short time.
        """
        with self._lock:
            if not self.closed:
                self._second = self._made(replace(self.qos, depth=1, keep_all=False))
                self._second_until = time.monotonic() + _REMATCH_SECONDS

    def take(self) -> None:
        """Call the callback with all messages that wait; on the participant's thread."""
        if self.is_rematching and time.monotonic() > self._second_until:
            self._second = None
        reader = self._reader
        if self.closed or reader is None:
            return
        for sample in reader.take(N=_SAMPLES_PER_TURN):  # the rest follows after the other readers
            if self.closed:
                return
            if hasattr(sample, "payload"):
                info = sample.sample_info
                sender = self._sender(reader, info.publication_handle)
                self._deliver(sample.payload, Attachment(0, info.source_timestamp, sender))

    def _sender(self, reader: Any, handle: int) -> bytes:
        if handle not in self._senders:
            data = reader.get_matched_publication_data(handle)
            if data is None:
                return bytes(16)
            self._senders[handle] = data.key
        return self._participant.gids.get(self._senders[handle], bytes(16))

    def _deliver(self, payload: bytes, attachment: Attachment) -> None:
        try:
            self._on_message(payload, attachment)
        except Exception:
            _logger.exception("error in a callback of the subscription to %s", self.name)

    def _withdraw(self) -> None:
        self._participant.unwatch(self._condition)
        self._participant.publish_nodes()
        # DDS deletes what has no references.
        self._condition = self._reader = self._second = None


def _made(kind: Any, participant: DdsParticipant, topic: Any, qos: Any) -> Any:
    try:
        return kind(participant.dds, topic, qos)
    except DDSException as error:
        raise SessionError(f"DDS refuses the topic {topic.name}: {error}") from error


def _no_services(*_: object) -> Any:
    raise SessionError(
        "services and actions of ROS 2 do not work over DDS here: Cyclone DDS for Python does not "
        "give access to the identity of a request; use Zenoh"
    )


class DdsParticipant(RosConnection):
    """All nodes of this process in one domain."""

    kind = "dds"
    publisher = DdsPublisher
    subscription = DdsSubscription
    service_server = service_client = _no_services

    def __init__(
        self,
        *,
        domain: int | None = None,
        on_graph: Callable[[], None] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Join a domain. Raises SessionError, InvalidName."""
        super().__init__(domain, environ, on_graph)
        self._found: dict[UUID, tuple[UUID, EndpointToken | None]] = {}
        """Participant and token of each discovered endpoint; tokens do not have their node."""
        self._named: dict[bytes, list[dict[str, Any]]] = {}
        self.gids: dict[UUID, bytes] = {}
        """GIDs of the endpoints in the graph."""
        self.topics: dict[str, Any] = {}
        try:
            network = configuration(environ)
            _domain(self.domain, network)
            if _LOOPBACK in network:
                _receive_from_loopback(self.domain)
            self.dds = DomainParticipant(self.domain)
            self._wait = WaitSet(self.dds)
            self._wake = GuardCondition(self.dds)
            self._wait.attach(self._wake)
            self._publications = BuiltinDataReader(self.dds, BuiltinTopicDcpsPublication)
            self._subscriptions = BuiltinDataReader(self.dds, BuiltinTopicDcpsSubscription)
            self.key: UUID = self.dds.get_guid()
            self.id = self.key.hex
            self._info = Types().message("rmw_dds_common/msg/ParticipantEntitiesInfo")
            named = Qos(transient_local=True, depth=1)
            topic = self.topic("ros_discovery_info", self._info)
            self._announcer = DataWriter(self.dds, topic, dds_qos(named, self._info.hash))
            every = Qos(transient_local=True, keep_all=True)
            self._infos = DataReader(self.dds, topic, dds_qos(every, self._info.hash))
        except DDSException as error:
            raise SessionError(f"cannot join the DDS domain {self.domain}: {error}") from error
        self._conditions = [
            self.watch(reader) for reader in (self._publications, self._subscriptions, self._infos)
        ]
        self._thread = threading.Thread(target=self._run, name="ros2-dds", daemon=True)
        self._thread.start()

    def topic(self, name: str, kind: WireType) -> Any:
        """Return the DDS topic of a name; its type cannot change."""
        with self.lock:
            held = self.topics.get(name)
            if held is None:
                held = self.topics[name] = Topic(self.dds, name, carrier_of(kind))
        if held.data_type.__idl__.idl_transformed_typename != kind.dds_name:
            wanted = ros_type(kind.dds_name)
            raise SessionError(f"the topic {name} already has another type than {wanted}")
        return held

    def _disconnect(self) -> None:
        self._wake.set(True)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def watch(self, reader: Any) -> ReadCondition:
        """Wake the thread when a reader has something to take."""
        condition = ReadCondition(reader, SampleState.NotRead | ViewState.Any | InstanceState.Any)
        self._wait.attach(condition)
        self._wake.set(True)
        return condition

    def unwatch(self, condition: ReadCondition | None) -> None:
        self._wait.detach(condition)

    def announce(self, node: RosNode) -> None:
        if self.closed:
            raise SessionError("the participant is closed")
        self.nodes[node] = None
        self.publish_nodes()

    def withdraw(self, node: RosNode) -> None:
        del self.nodes[node]
        self.publish_nodes()

    def publish_nodes(self) -> None:
        """Publish which endpoints belong to which node."""

        def keys(node: RosNode, kind: Kind) -> list[dict[str, bytes]]:
            found: list[Any] = [one for one in list(node.endpoints) if one.kind is kind]
            return [{"data": one.key.bytes} for one in found]

        with self.lock:
            entries = [
                {
                    "node_namespace": node.namespace,
                    "node_name": node.name,
                    "reader_gid_seq": keys(node, Kind.SUBSCRIPTION),
                    "writer_gid_seq": keys(node, Kind.PUBLISHER),
                }
                for node in list(self.nodes)
            ]
            value = {"gid": {"data": self.key.bytes}, "node_entities_info_seq": entries}
            carrier = self.topics["ros_discovery_info"].data_type
            self._announcer.write(carry(carrier, self._info.encode(value)))

    # the thread

    def _run(self) -> None:
        while not self.closed:
            try:
                self._wait.wait(SECOND)
                self._wake.set(False)
                if self.closed:
                    break
                # Participants that announced names were discovered before.
                named = self._take_names()
                if self._take_endpoints() or named:
                    self._update()
                for subscription in self._subscribed():
                    subscription.take()
            except Exception:
                _logger.exception("error in a participant of DDS")
                time.sleep(0.1)

    def _take_endpoints(self) -> bool:
        changed = False
        rematched: set[str] = set()
        for reader, writes in ((self._publications, True), (self._subscriptions, False)):
            for sample in _all_of(reader):
                changed = True
                if sample.sample_info.valid_data and sample.qos is not None:
                    token = self._token(sample, writes=writes)
                    if (
                        sample.key not in self._found
                        and token is not None
                        and _needs_rematch(token)
                    ):
                        rematched.add(token.name)
                    self._found[sample.key] = (sample.participant_key, token)
                else:
                    self._found.pop(sample.key, None)
        for subscription in self._subscribed():
            if subscription.name in rematched and subscription.qos.reliable:
                subscription.rematch()
        return changed

    def _subscribed(self) -> list[DdsSubscription]:
        endpoints = [one for node in list(self.nodes) for one in list(node.endpoints)]
        return [one for one in endpoints if isinstance(one, DdsSubscription)]

    def _take_names(self) -> bool:
        changed = False
        for sample in _all_of(self._infos):
            if not hasattr(sample, "payload"):
                continue  # a participant that left: its endpoints are removed as well
            try:
                info = self._info.decode(sample.payload).to_pylist()[0]
            except MalformedMessage:
                continue  # Humble, whose identifiers are longer
            self._named[bytes(info["gid"]["data"])] = info["node_entities_info_seq"]
            changed = True
        return changed

    def _update(self) -> None:
        """Build the graph from the discovered endpoints."""
        present = {one.bytes for one, _ in self._found.values()} | {self.key.bytes}
        self._named = {key: nodes for key, nodes in self._named.items() if key in present}
        nodes: dict[bytes, NodeToken] = {}
        tokens: set[str] = set()
        for participant, entries in self._named.items():
            for number, entry in enumerate(entries):
                node = NodeToken(
                    self.domain,
                    participant.hex(),
                    str(number),
                    entry["node_namespace"],
                    entry["node_name"],
                )
                tokens.add(str(node))
                for one in (*entry["reader_gid_seq"], *entry["writer_gid_seq"]):
                    nodes[bytes(one["data"])] = node
        gids = {}
        for key, (_, found) in self._found.items():
            if found is not None:
                text = str(replace(found, node=nodes.get(key.bytes, found.node)))
                tokens.add(text)
                gids[key] = gid(text)
        self.gids = gids
        with self._changed:
            known = set(self.graph.texts())
            for text in known - tokens:
                self.graph.remove(text)
            for text in tokens - known:
                self.graph.add(text)
            self._changed.notify_all()
        self.check_matches()
        if self._on_graph is not None and not self.closed:
            self._on_graph()

    def _token(self, sample: Any, *, writes: bool) -> EndpointToken | None:
        """Return the token of a discovered endpoint; None for those that ROS does not show."""
        prefix, _, name = sample.topic_name.partition("/")
        type_name = sample.type_name
        if prefix == "rt":
            kind = Kind.PUBLISHER if writes else Kind.SUBSCRIPTION
        elif prefix == "rq":
            kind = Kind.CLIENT if writes else Kind.SERVER
            name = name.removesuffix("Request")
            type_name = type_name.removesuffix("Request_").rstrip("_") + "_"
        else:
            return None
        node = NodeToken(self.domain, sample.participant_key.hex, "0", "/", _UNKNOWN)
        known = type_hash(sample.qos), ros_qos(sample.qos)
        return EndpointToken(node, sample.key.hex, kind, f"/{name}", type_name, *known)


def _needs_rematch(token: EndpointToken) -> bool:
    """Return whether messages of a new publisher are lost before its heartbeat; see `rematch`."""
    is_foreign = not bytes.fromhex(token.eid).startswith(_CYCLONE)
    lasting = token.qos.reliable and not token.qos.transient_local
    return token.kind is Kind.PUBLISHER and is_foreign and lasting


def _all_of(reader: Any) -> Iterator[Any]:
    """Take all samples that wait in a reader."""
    while samples := reader.take(N=_SAMPLES_PER_TURN):
        yield from samples
