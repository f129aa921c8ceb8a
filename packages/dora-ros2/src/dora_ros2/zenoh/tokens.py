"""Liveliness tokens of rmw_zenoh, which announce nodes and their endpoints (pure)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import xxhash

from dora_ros2.errors import InvalidName, MalformedMessage

SPACE = "@ros2_lv"
"""First part of every token; wildcards do not match it."""
_NODE_PARTS = 9
"""Parts of the token of a node."""
_ENDPOINT_PARTS = 13
"""Fewest parts of the token of a node, and of an endpoint."""


_LAYOUT = struct.Struct("<qqB16s")
_OLD_LAYOUT = struct.Struct("<16sq17sq11sB16s")
_OLD_NAMES = (b"\x0fsequence_number", b"\x10source_timestamp", b"\x0asource_gid")
OLD_ATTACHMENT = (
    "an attachment of rmw_zenoh 0.2.3 or older, which cannot read ours;"
    " update rmw_zenoh there to 0.2.4 or newer"
)


DEFAULT_DEPTH = 42
"""Depth that rmw_zenoh leaves out of a token."""
SECOND = 1_000_000_000
INFINITE = 9223372036 * SECOND
"""Nanoseconds from which a duration of ROS is infinite."""


NO_HASH = "TypeHashNotSupported"
"""Replaces the type hash, which Humble lacks."""

_WIRE_NAME = re.compile(r"(\w+)::(msg|srv|action)::dds_::(\w+)_", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class WireType(Protocol):
    """Message or service type as rmw_zenoh uses it."""

    @property
    def dds_name(self) -> str: ...
    @property
    def hash(self) -> str: ...


def ros_type(dds: str) -> str:
    """Return ``std_msgs/msg/String`` for its name on the wire; other texts are unchanged."""
    match = _WIRE_NAME.fullmatch(dds)
    return "/".join(match.groups()) if match else dds


def check_node_name(name: str) -> str:
    """Return the name of a node. Raises InvalidName."""
    if not _NAME.fullmatch(name):
        raise InvalidName(
            f'"{name}" is not a valid name of a ROS node; use letters, digits and underscores,'
            " and do not start with a digit"
        )
    return name


def absolute(name: str, namespace: str = "/", node: str = "") -> str:
    """Return the full name of a topic, service, action or namespace, as ``/robot1/chatter``.

    A name without a slash in front is relative to the namespace, ``~/x`` to the node.
    Raises InvalidName.
    """
    parent = namespace.rstrip("/")
    if name == "~" or name.startswith("~/"):
        full = f"{parent}/{node}{name[1:]}"
    else:
        full = name if name.startswith("/") else f"{parent}/{name}"
    if not all(_NAME.fullmatch(part) for part in full[1:].split("/")):
        raise InvalidName(
            f'"{name}" is not a valid ROS name; use letters, digits and underscores between'
            " single slashes, and start no part with a digit"
        )
    return full


def check_namespace(namespace: str) -> str:
    """Return a namespace with a slash in front. Raises InvalidName."""
    return "/" if namespace in ("", "/") else absolute(namespace)


def data_key(domain: int, name: str, dds_name: str, type_hash: str) -> str:
    """Return the key of a topic's messages or of a service's requests."""
    return f"{domain}/{name.strip('/')}/{dds_name}/{type_hash}"


def parse_domain(text: str) -> int:
    """Return the domain that ROS_DOMAIN_ID names; 0 for an empty text. Raises InvalidName."""
    try:
        domain = int(text or "0")
    except ValueError:
        domain = -1
    if not 0 <= domain <= 232:
        raise InvalidName(f'"{text}" is not a valid ROS domain; expected a number from 0 to 232')
    return domain


def stamp(time_ns: int) -> dict[str, int]:
    """Return a time as `builtin_interfaces/msg/Time`."""
    return {"sec": time_ns // SECOND, "nanosec": time_ns % SECOND}


@dataclass(frozen=True)
class Qos:
    """Quality of service. Durations are nanoseconds; None is infinite."""

    reliable: bool = True
    transient_local: bool = False
    keep_all: bool = False
    depth: int = 10
    deadline: int | None = None
    lifespan: int | None = None
    manual_liveliness: bool = False
    lease: int | None = None

    def token(self) -> str:
        """Return the last part of a token; defaults of rmw_zenoh are left empty."""
        reliability = "" if self.reliable else "2"
        durability = "1" if self.transient_local else ""
        history = "2" if self.keep_all else ""
        depth = "" if self.depth == DEFAULT_DEPTH else str(self.depth)
        liveliness = "3" if self.manual_liveliness else ""
        return (
            f"{reliability}:{durability}:{history},{depth}:{_duration(self.deadline)}"
            f":{_duration(self.lifespan)}:{liveliness},{_duration(self.lease)}"
        )

    def __str__(self) -> str:
        words = [
            "reliable" if self.reliable else "best effort",
            "transient local" if self.transient_local else "volatile",
            "keep all" if self.keep_all else f"keep last {self.depth}",
        ]
        for name in ("deadline", "lifespan", "lease"):
            value = getattr(self, name)
            if value is not None:
                words.append(f"{name} {value / SECOND:g} s")
        if self.manual_liveliness:
            words.append("manual liveliness")
        return ", ".join(words)


def incompatibility(offered: Qos, requested: Qos) -> str | None:
    """Return why a subscription does not receive from a publisher over DDS; None if it does.

    Over Zenoh each subscription receives from each publisher.
    """
    if requested.reliable and not offered.reliable:
        return "the publisher is best effort, the subscription reliable"
    if requested.transient_local and not offered.transient_local:
        return "the publisher is volatile, the subscription transient local"
    if (requested.deadline or INFINITE) < (offered.deadline or INFINITE):
        return "the subscription's deadline is shorter than the publisher's"
    if requested.manual_liveliness and not offered.manual_liveliness:
        return "the publisher's liveliness is automatic, the subscription's manual"
    if (requested.lease or INFINITE) < (offered.lease or INFINITE):
        return "the subscription's lease is shorter than the publisher's"
    return None


def parse_qos(text: str) -> Qos:
    """Return the QoS of a token; unknown codes are read as the default. Raises ValueError."""
    fields = text.split(":")
    if len(fields) < 6:
        raise ValueError(f'"{text}" is not a QoS of rmw_zenoh')
    reliability, durability, history, deadline, lifespan, liveliness = fields[:6]
    kind, _, depth = history.partition(",")
    manual, _, lease = liveliness.partition(",")
    return Qos(
        reliable=_code(reliability) != 2,
        transient_local=_code(durability) == 1,
        keep_all=_code(kind) == 2,
        depth=_code(depth) or DEFAULT_DEPTH,
        deadline=_nanoseconds(deadline),
        lifespan=_nanoseconds(lifespan),
        manual_liveliness=_code(manual) == 3,
        lease=_nanoseconds(lease),
    )


def _code(text: str) -> int:
    return int(text or "0")


def _duration(value: int | None) -> str:
    return "," if value is None else f"{value // SECOND},{value % SECOND}"


def _nanoseconds(text: str) -> int | None:
    seconds, _, rest = text.partition(",")
    if not seconds and not rest:
        return None
    value = _code(seconds) * SECOND + _code(rest)
    return None if value >= INFINITE else value


@dataclass(frozen=True)
class Attachment:
    """Number, time and sender of a message; `old`: as rmw_zenoh wrote it before April 2025."""

    sequence: int
    time_ns: int
    gid: bytes
    old: bool = False

    def encode(self) -> bytes:
        """Return the 33 bytes of today's form."""
        return _LAYOUT.pack(self.sequence, self.time_ns, len(self.gid), self.gid)


def decode_attachment(data: bytes) -> Attachment:
    """Read either form. Raises MalformedMessage."""
    if len(data) == _LAYOUT.size and data[16] == 16:
        sequence, time_ns, _, gid = _LAYOUT.unpack(data)
        return Attachment(sequence, time_ns, gid)
    if len(data) == _OLD_LAYOUT.size:
        first, sequence, second, time_ns, third, _, gid = _OLD_LAYOUT.unpack(data)
        if (first, second, third) == _OLD_NAMES:
            return Attachment(sequence, time_ns, gid, old=True)
    raise MalformedMessage(f"{len(data)} bytes are not an attachment of rmw_zenoh")


def gid(token: str) -> bytes:
    """Return the GID of the endpoint with this token: its XXH3-128, low half first."""
    return xxhash.xxh3_128_intdigest(token.encode()).to_bytes(16, "little")


class Kind(StrEnum):
    """Kind of the entity that a token announces."""

    NODE = "NN"
    PUBLISHER = "MP"
    SUBSCRIPTION = "MS"
    SERVER = "SS"
    CLIENT = "SC"


@dataclass(frozen=True)
class NodeToken:
    """A node; `zid` is the id of its Zenoh session, `nid` its number there."""

    domain: int
    zid: str
    nid: str
    namespace: str
    name: str
    enclave: str = ""

    @property
    def full_name(self) -> str:
        """Namespace and name, as ``/robot1/camera``."""
        return f"{self.namespace.rstrip('/')}/{self.name}"

    def __str__(self) -> str:
        return self.text(self.nid, Kind.NODE)

    def text(self, eid: str, kind: Kind) -> str:
        """Return the parts that the tokens of a node and of its endpoints share."""
        names = "/".join(mangle(part) for part in (self.enclave, self.namespace, self.name))
        return f"{SPACE}/{self.domain}/{self.zid}/{self.nid}/{eid}/{kind}/{names}"


@dataclass(frozen=True)
class EndpointToken:
    """A publisher, subscription, service server or service client of a node."""

    node: NodeToken
    eid: str
    kind: Kind
    name: str
    dds_name: str
    hash: str
    qos: Qos

    @property
    def type(self) -> str:
        """Name of the type, as ``std_msgs/msg/String``."""
        return ros_type(self.dds_name)

    @property
    def humble(self) -> bool:
        """Whether the endpoint belongs to ROS 2 Humble, which has no type hashes."""
        return self.hash == NO_HASH

    def __str__(self) -> str:
        own = "/".join(mangle(part) for part in (self.name, self.dds_name, self.hash))
        return f"{self.node.text(self.eid, self.kind)}/{own}/{self.qos.token()}"


def parse_token(text: str) -> NodeToken | EndpointToken:
    """Read a token; parts after those of today are ignored. Raises ValueError."""
    parts = text.split("/")
    if parts[0] != SPACE or len(parts) < _NODE_PARTS:
        raise ValueError("it has too few parts")
    _, domain, zid, nid, eid, kind, *names = parts
    enclave, namespace, name = (_demangle(part) for part in names[:3])
    node = NodeToken(
        int(domain), zid, nid, namespace or "/", name, "" if enclave == "/" else enclave
    )
    if Kind(kind) is Kind.NODE:
        return node
    if len(parts) < _ENDPOINT_PARTS:
        raise ValueError("it has too few parts for an endpoint")
    topic, dds_name, type_hash = (_demangle(part) for part in names[3:6])
    return EndpointToken(node, eid, Kind(kind), topic, dds_name, type_hash, parse_qos(names[6]))


def mangle(part: str) -> str:
    """Return a name as a part of a token."""
    return part.replace("/", "%") or "%"


def _demangle(part: str) -> str:
    return part.replace("%", "/")
