"""Opens a node of ROS over Zenoh or DDS, and chooses between them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from dora_ros2.connection import Kinds, RosConnection
from dora_ros2.errors import SessionError
from dora_ros2.zenoh import ROUTER
from dora_ros2.zenoh.graph import Profile
from dora_ros2.zenoh.session import ZenohSession
from dora_ros2.zenoh.tokens import INFINITE, SECOND, Qos

CYCLONE = "cyclonedds>=11.0.1"
"""The library of the extra `dds`."""
_ANSWER_SECONDS = 0.5
"""Time for a router on this computer to accept a connection."""
logger = logging.getLogger("dora_ros2")


@dataclass(frozen=True)
class Choice:
    """A transport, and why it was chosen."""

    kind: Kinds
    reason: str
    waits: str = ""
    """Missing condition, if DDS is used only because no router answers yet."""


def choose_transport(environ: Mapping[str, str], *, config: str = "") -> Choice:
    """Choose Zenoh if it is configured or a router answers, else DDS if it is installed."""
    if config or environ.get("ZENOH_SESSION_CONFIG_URI"):
        return Choice("zenoh", "it has a session file")
    has_dds = find_spec("cyclonedds") is not None
    rmw = environ.get("RMW_IMPLEMENTATION", "")
    if "zenoh" in rmw or (rmw and has_dds):
        return Choice("zenoh" if "zenoh" in rmw else "dds", f"RMW_IMPLEMENTATION is {rmw}")
    if environ.get("ZENOH_CONFIG_OVERRIDE"):
        return Choice("zenoh", "ZENOH_CONFIG_OVERRIDE is set")
    if router_answers():
        return Choice("zenoh", f"a router answers at {ROUTER}")
    where = f"no Zenoh router answers at {ROUTER}"
    if has_dds:
        waits = f"waits for a Zenoh router at {ROUTER}, or for the other side of a topic over DDS"
        return Choice("dds", f"{where}, and DDS is installed", waits)
    return Choice("zenoh", f'{where} yet, and DDS is not installed (pip install "{CYCLONE}")')


def router_answers() -> bool:
    """Return whether a router of Zenoh listens on this computer."""
    host, _, port = ROUTER.partition("/")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def connect(
    kind: Kinds,
    *,
    domain: int | None = None,
    config: str = "",
    profile: str | None = None,
    on_state: Callable[[str | None], None] | None = None,
    on_graph: Callable[[], None] | None = None,
) -> RosConnection:
    """Open a session, or join a DDS domain. `on_state`: as that of a Zenoh session.

    Raises SessionError, InvalidName.
    """
    if kind == "zenoh":
        return ZenohSession(
            domain=domain,
            config=config.removeprefix("file://"),
            profile=None if profile is None else Profile(profile),
            on_state=on_state,
            on_graph=on_graph,
        )
    if find_spec("cyclonedds") is None:
        raise SessionError(f'the transport dds needs Cyclone DDS: pip install "{CYCLONE}"')
    from dora_ros2.dds.participant import DdsParticipant

    return DdsParticipant(domain=domain, on_graph=on_graph)


def qos_of(written: Mapping[str, Any]) -> Qos:
    """Return the quality of service of a `qos` block of a dataflow file, with its defaults."""
    lease = written.get("lease_duration")
    return Qos(
        reliable=written.get("reliable", False),
        transient_local=written.get("durability", "volatile") != "volatile",
        keep_all=written.get("keep_all", False),
        depth=written.get("keep_last", 1),
        manual_liveliness=written.get("liveliness", "automatic") == "manual_by_topic",
        lease=None if lease is None or lease * SECOND >= INFINITE else round(lease * SECOND),
    )
