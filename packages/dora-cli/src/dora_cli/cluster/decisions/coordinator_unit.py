"""The systemd unit of a cluster's coordinator: written, and read back; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from dora_cli.cluster.decisions.unit_syntax import escape_specifiers, exec_line, quote
from dora_config.cluster.models import DEFAULT_COORDINATOR_PORT, Cluster

_VERSION = re.compile(r"^# dora (\S+)$", re.MULTILINE)
_START = re.compile(r"^ExecStart=(.*)$", re.MULTILINE)
_DESCRIPTION = re.compile(r"^Description=Dora Coordinator \((.*)\)$", re.MULTILINE)


def coordinator_service_name(cluster: Cluster) -> str:
    """Return the name of the unit without ``.service``."""
    port = cluster.coordinator.port
    return "dora-coordinator" + ("" if port == DEFAULT_COORDINATOR_PORT else f"-{port}")


def render_coordinator_unit(
    cluster: Cluster,
    argv: Sequence[str],
    *,
    version: str,
    token_file: str,
    user: str | None,
    environment: Mapping[str, str],
    environment_path: str,
) -> str:
    """Return the text of the unit file.

    ``environment_path``: a file of more variables, which need not exist.
    ``user``: the account of a system service; None: a unit of the user's own systemd.
    """
    system = user is not None
    variables = (quote(f"{name}={text}") for name, text in sorted(environment.items()))
    lines = [
        "# Written by `dora cluster install`, removed by `dora cluster uninstall`.",
        f"# dora {version}",
        "[Unit]",
        # read back by `unit_address`
        f"Description=Dora Coordinator ({address(cluster)})",
        *(["After=network-online.target"] if system else []),
        *(["Wants=network-online.target"] if system else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"User={user}"] if system else []),
        "WorkingDirectory=~",
        *(f"Environment={text}" for text in variables),
        f"EnvironmentFile=-{escape_specifiers(environment_path)}",
        f"ExecStart={exec_line(argv)}",
        # on-failure: after `dora down` it exits with code 0
        "Restart=on-failure",
        "RestartSec=2",
        "TimeoutStopSec=20",
        "LimitNOFILE=65536",
        f"LoadCredential=dora-token:{escape_specifiers(token_file)}",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def address(cluster: Cluster) -> str:
    """Return the coordinator's address: ``10.0.0.1:6013``."""
    return f"{cluster.coordinator.addr}:{cluster.coordinator.port}"


def unit_version(text: str) -> str:
    """Return the version of dora that a unit starts; empty if the unit has none."""
    found = _VERSION.search(text)
    return found[1] if found else ""


def unit_address(text: str) -> str:
    """Return the address of the coordinator that a unit starts; empty if the unit has none."""
    found = _DESCRIPTION.search(text)
    return found[1] if found else ""


def unit_program(text: str) -> str:
    """Return the program that a unit starts; empty if the unit has none."""
    found = _START.search(text)
    if found is None:
        return ""
    words = shlex.split(found[1].replace("%%", "%").replace("$$", "$"))
    return words[0] if words else ""
