"""The systemd unit of a machine's daemon; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dora_cli.cluster.decisions.daemon_argv import daemon_arguments
from dora_config.cluster.models import Cluster, Machine

STOP_TIMEOUT = 60
"""Seconds that the dataflows of a machine may take to end."""

_SPECIAL = re.compile(r'[\\"$`]')
_ESCAPE = r"\\\g<0>"

HAND_OVER = "SIGUSR2"
"""The daemon ends and leaves its nodes to the next one."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where the daemon's service has its parts on the machine."""

    dora: str
    """Absolute path of the command."""
    token: str
    """Absolute path of the token's file, which only root (or the user) reads."""
    environment: str
    """Absolute path of the file of ``env``'s variables, which only root (or the user) reads."""
    user: str | None
    """Whom the nodes run as; None for a unit of the user's own systemd."""


def service_name(machine: Machine) -> str:
    """Without ``.service``."""
    return f"dora-daemon-{machine.id}"


def render_unit(cluster: Cluster, machine: Machine, service: Service) -> str:
    """The text of the unit file."""
    name = service_name(machine)
    start = [service.dora, *daemon_arguments(cluster, machine)]
    network = service.user is not None
    lines = [
        "# Written by `dora cluster install`, removed by `dora cluster uninstall`.",
        "[Unit]",
        f"Description=Dora Daemon ({machine.id})",
        # dbus, because the daemon asks systemd at its end whether the machine is being stopped
        *(["After=network-online.target dbus.service"] if network else []),
        *(["Wants=network-online.target"] if network else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"User={service.user}"] if service.user is not None else []),
        "WorkingDirectory=~",
        f"ExecStart={command(start)}",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=process",
        "KillSignal=SIGTERM",
        f"RestartKillSignal={HAND_OVER}",
        f"TimeoutStopSec={STOP_TIMEOUT}",
        "OOMPolicy=continue",
        "Delegate=yes",
        "LimitNOFILE=65536",
        f"RuntimeDirectory={name}",
        "RuntimeDirectoryMode=0700",
        "RuntimeDirectoryPreserve=yes",
        f"LoadCredential=dora-token:{escaped(service.token)}",
        *([f"EnvironmentFile=-{escaped(service.environment)}"] if machine.env else []),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if network else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def render_environment(machine: Machine) -> str | None:
    """The text of the file of its ``env``; None without any."""
    if not machine.env:
        return None
    pairs = sorted(machine.env.items())
    return "".join(f'{name}="{_SPECIAL.sub(_ESCAPE, text)}"\n' for name, text in pairs)


def command(words: Sequence[str]) -> str:
    """Words as a unit's Exec line has them: nothing in them is expanded."""
    return " ".join(word if _is_plain(word) else quoted(word.replace("$", "$$")) for word in words)


def quoted(text: str) -> str:
    """In double quotes; ``$`` keeps its meaning."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped(safe)}"'


def escaped(text: str) -> str:
    """Without the meaning that ``%`` has in units."""
    return text.replace("%", "%%")


def _is_plain(word: str) -> bool:
    return word != "" and all(char.isalnum() or char in "/._-=,:@+" for char in word)
