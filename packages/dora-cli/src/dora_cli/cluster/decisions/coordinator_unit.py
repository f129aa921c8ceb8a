"""The systemd unit of a cluster's coordinator, and what one that is there contains; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from dora_cli.cluster.decisions.daemon_unit import command, escaped, quoted
from dora_config.cluster.models import DEFAULT_COORDINATOR_PORT, Cluster

_VERSION = re.compile(r"^# dora (\S+)$", re.MULTILINE)
_START = re.compile(r"^ExecStart=(.*)$", re.MULTILINE)
_DESCRIPTION = re.compile(r"^Description=Dora Coordinator \((.*)\)$", re.MULTILINE)


def coordinator_service_name(cluster: Cluster) -> str:
    """Without ``.service``."""
    port = cluster.coordinator.port
    return "dora-coordinator" + ("" if port == DEFAULT_COORDINATOR_PORT else f"-{port}")


def render_coordinator_unit(
    cluster: Cluster,
    words: Sequence[str],
    *,
    version: str,
    token: str,
    user: str | None,
    environment: Mapping[str, str],
) -> str:
    """The text of the unit file; ``user`` None: a unit of the user's own systemd."""
    network = user is not None
    variables = (quoted(f"{name}={text}") for name, text in sorted(environment.items()))
    lines = [
        "# Written by `dora cluster install`, removed by `dora cluster uninstall`.",
        f"# dora {version}",
        "[Unit]",
        f"Description=Dora Coordinator ({address(cluster)})",
        *(["After=network-online.target"] if network else []),
        *(["Wants=network-online.target"] if network else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"User={user}"] if user is not None else []),
        "WorkingDirectory=~",
        *(f"Environment={text}" for text in variables),
        f"ExecStart={command(words)}",
        # on-failure: `dora down` ends it with code 0
        "Restart=on-failure",
        "RestartSec=2",
        "TimeoutStopSec=20",
        "LimitNOFILE=65536",
        f"LoadCredential=dora-token:{escaped(token)}",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if network else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def address(cluster: Cluster) -> str:
    """``10.0.0.1:6013``"""
    return f"{cluster.coordinator.addr}:{cluster.coordinator.port}"


def unit_version(text: str) -> str:
    """The version of dora that a unit starts; empty when it does not name one."""
    found = _VERSION.search(text)
    return found[1] if found else ""


def unit_address(text: str) -> str:
    """The address of the coordinator that a unit starts; empty when it does not name one."""
    found = _DESCRIPTION.search(text)
    return found[1] if found else ""


def unit_program(text: str) -> str:
    """The first word of its command line; empty without one."""
    found = _START.search(text)
    if found is None:
        return ""
    words = shlex.split(found[1].replace("%%", "%").replace("$$", "$"))
    return words[0] if words else ""
