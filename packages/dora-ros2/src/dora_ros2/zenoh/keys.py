"""Names and key expressions of rmw_zenoh (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from dora_ros2.definitions.description import ros_name
from dora_ros2.errors import DefinitionError, InvalidName

NO_HASH = "TypeHashNotSupported"
"""In place of the type hash: Humble has none."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class WireType(Protocol):
    """What rmw_zenoh needs of a message or service type."""

    @property
    def dds_name(self) -> str: ...
    @property
    def hash(self) -> str: ...


@dataclass(frozen=True)
class NamedType:
    """A type without a definition, as in the token of another node."""

    dds_name: str
    hash: str


def ros_type(dds: str) -> str:
    """Return ``std_msgs/msg/String`` for its name on the wire; other texts are unchanged."""
    try:
        return ros_name(dds)
    except DefinitionError:
        return dds


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
