"""Check of `dora doctor`: processes of dora in a ROS domain, and their open ports."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil

from dora_cli.diagnosis import Finding


def check() -> Iterator[Finding]:
    """List the processes of this account in a ROS domain; warn of those open to other computers."""
    for process in psutil.process_iter():
        try:
            found = _ros_session(process)
        except (psutil.Error, OSError):
            continue  # the process has ended, or belongs to another account
        if found is not None:
            yield found


def _ros_session(process: psutil.Process) -> Finding | None:
    words, environ = process.cmdline(), process.environ()
    is_command = len(words) > 2 and Path(words[1]).name == "dora" and words[2] == "ros2"
    is_node = "DORA_NODE_CONFIG" in environ and not any("dora_daemon" in word for word in words)
    if not is_command and not is_node:
        return None
    loaded = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
    kinds = [kind for kind in ("cyclonedds", "zenoh") if f"/{kind}/" in loaded]
    connections = process.net_connections("inet")
    if not kinds or not connections:
        return None
    # A bridge over DDS loads Zenoh as well.
    is_dds = "cyclonedds" in kinds and any(one.type == socket.SOCK_DGRAM for one in connections)
    domain = environ.get("ROS_DOMAIN_ID") or "0"
    if "--domain" in words[:-1]:
        domain = words[words.index("--domain") + 1]
    name = "dora ros2" if is_command else f"node {_node_id(environ['DORA_NODE_CONFIG'])}"
    text = f"{name} (pid {process.pid}): domain {domain}, {'DDS' if is_dds else 'Zenoh'}"
    peers = [_address(one.raddr) for one in connections if one.status == psutil.CONN_ESTABLISHED]
    listeners = [
        one.laddr
        for one in connections
        if one.status == psutil.CONN_LISTEN or one.type == socket.SOCK_DGRAM
    ]
    if peers:
        text += f", connected to {', '.join(sorted(set(peers)))}"
    # nodes of ROS 2 bind the sockets of Cyclone DDS to the loopback interface.
    reach = environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST").upper()
    is_bound = is_dds and not environ.get("CYCLONEDDS_URI") and reach != "SUBNET"
    addresses = sorted({_address(one) for one in listeners})
    opened = sorted({_address(one) for one in listeners if not ip_address(one.ip).is_loopback})
    if opened and not is_bound:
        remedy = "other computers can connect; if that is not intended, change its session file, "
        remedy += "ZENOH_CONFIG_OVERRIDE, CYCLONEDDS_URI or ROS_AUTOMATIC_DISCOVERY_RANGE"
        return Finding("WARN", "ROS 2", f"{text}, listens on {', '.join(opened)}; {remedy}")
    where = " of the loopback interface" if is_bound else ""
    return Finding(
        "PASS", "ROS 2", f"{text}, listens on {', '.join(addresses) or 'no port'}{where}"
    )


def _address(address: Any) -> str:
    return f"[{address.ip}]:{address.port}" if ":" in address.ip else f"{address.ip}:{address.port}"


def _node_id(config: str) -> str:
    """Return the id in a launch configuration, possibly of another version."""
    try:
        return str(json.loads(config)["node_id"])
    except (ValueError, KeyError, TypeError):
        return "of dora"
