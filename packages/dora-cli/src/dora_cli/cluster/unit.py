"""The systemd unit of a machine's daemon; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dora_cli.cluster.daemon_argv import daemon_arguments
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


def nodes_unit(machine: Machine) -> str:
    """The unit that holds the runners and nodes of the daemon, which go on without it."""
    return f"dora-nodes-{machine.id}.service"


def render_unit(cluster: Cluster, machine: Machine, service: Service) -> str:
    """The text of the unit file."""
    name = service_name(machine)
    start = [service.dora, *daemon_arguments(cluster, machine)]
    network = service.user is not None
    nodes = nodes_unit(machine)
    lines = [
        "# Written by `dora cluster install`, removed by `dora cluster uninstall`.",
        "[Unit]",
        f"Description=Dora Daemon ({machine.id})",
        # dbus, because the daemon asks systemd at its end whether the machine is being stopped
        *(["After=network-online.target dbus.service"] if network else []),
        *(["Wants=network-online.target"] if network else []),
        # at shutdown the daemon ends first, and its dataflows with it
        f"After={nodes}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"User={service.user}"] if service.user is not None else []),
        "WorkingDirectory=~",
        f"Environment=DORA_RUNNERS_UNIT={'system' if network else 'user'}:{nodes}",
        f"ExecStartPre={_start_nodes_unit(machine, service)}",
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


def _start_nodes_unit(machine: Machine, service: Service) -> str:
    """The words of an Exec line. The unit is a transient one: without files, gone after a reboot.

    Without this unit, systemd warns about every runner and node when the daemon restarts.
    """
    unit = nodes_unit(machine)
    user = service.user is None
    properties = {
        "Type": "oneshot",
        "RemainAfterExit": "yes",
        **({} if user else {"User": service.user}),
        "Delegate": "yes",
        "OOMPolicy": "continue",
        "TimeoutStopSec": STOP_TIMEOUT,
    }
    manager = "--user" if user else "--system"
    run = [
        *("systemd-run", manager, "--quiet", "--collect", f"--unit={unit}"),
        f"--description='Nodes of Dora Daemon ({machine.id})'",
        *(f"--property={name}={value}" for name, value in properties.items()),
        "true",
    ]
    # it is known to systemd from its first start on, also after `systemctl stop`
    known = f"systemctl {manager} --quiet start {unit} 2>/dev/null"
    # `-`: the daemon starts without the unit; `+`: as root, whoever runs the daemon
    prefix = "-" if user else "-+"
    return prefix + command(["/bin/sh", "-c", f"{known} || exec {' '.join(run)}"])


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
