"""Liveliness tokens of rmw_zenoh, which announce nodes and their endpoints (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dora_ros2.zenoh.keys import NO_HASH, ros_type
from dora_ros2.zenoh.qos import Qos, parse_qos

SPACE = "@ros2_lv"
"""First part of every token; wildcards do not match it."""
_NODE_PARTS = 9
_ENDPOINT_PARTS = 13


class Kind(StrEnum):
    """What a token announces."""

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
        names = "/".join(_mangle(part) for part in (self.enclave, self.namespace, self.name))
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
        own = "/".join(_mangle(part) for part in (self.name, self.dds_name, self.hash))
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


def _mangle(part: str) -> str:
    return part.replace("/", "%") or "%"


def _demangle(part: str) -> str:
    return part.replace("%", "/")
