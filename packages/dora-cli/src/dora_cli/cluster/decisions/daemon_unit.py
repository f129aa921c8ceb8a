"""The systemd unit of a machine's daemon and its environment file; pure."""

from __future__ import annotations

from dataclasses import dataclass

from dora_cli.cluster.decisions.daemon_argv import daemon_arguments
from dora_cli.cluster.decisions.unit_syntax import environment_file, escape_specifiers, exec_line
from dora_config.cluster.models import Cluster, Machine

STOP_TIMEOUT = 60
"""Seconds for the machine's dataflows to end."""
HAND_OVER_SIGNAL = "SIGUSR2"
"""On it the daemon ends and leaves its nodes to the next daemon."""


@dataclass(frozen=True, slots=True)
class ServicePaths:
    """Absolute paths of the daemon's service on the machine, and the user it runs as."""

    dora: str
    token: str
    """Readable by root (or the user) only."""
    environment: str
    """The variables of `env`; readable by root (or the user) only."""
    user: str | None
    """None for a unit of the user's own systemd."""


def service_name(machine: Machine) -> str:
    """Return the name of the unit without ``.service``."""
    return f"dora-daemon-{machine.id}"


def nodes_unit(machine: Machine) -> str:
    """Return the unit of the daemon's runners and nodes, which keep running without it."""
    return f"dora-nodes-{machine.id}.service"


def render_unit(cluster: Cluster, machine: Machine, paths: ServicePaths) -> str:
    """Return the text of the unit file."""
    name = service_name(machine)
    start = [paths.dora, *daemon_arguments(cluster, machine)]
    system = paths.user is not None
    nodes = nodes_unit(machine)
    environment = escape_specifiers(paths.environment)
    lines = [
        "# Written by `dora cluster install`, removed by `dora cluster uninstall`.",
        "[Unit]",
        f"Description=Dora Daemon ({machine.id})",
        # dbus: an ending daemon queries systemd for a shutdown of the machine
        *(["After=network-online.target dbus.service"] if system else []),
        *(["Wants=network-online.target"] if system else []),
        # at shutdown the daemon ends first, and ends its dataflows
        f"After={nodes}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"User={paths.user}"] if system else []),
        "WorkingDirectory=~",
        f"Environment=DORA_RUNNERS_UNIT={'system' if system else 'user'}:{nodes}",
        f"ExecStartPre={_start_nodes_unit(machine, paths)}",
        f"ExecStart={exec_line(start)}",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=process",
        "KillSignal=SIGTERM",
        f"RestartKillSignal={HAND_OVER_SIGNAL}",
        f"TimeoutStopSec={STOP_TIMEOUT}",
        "OOMPolicy=continue",
        "Delegate=yes",
        "LimitNOFILE=65536",
        f"RuntimeDirectory={name}",
        "RuntimeDirectoryMode=0700",
        "RuntimeDirectoryPreserve=yes",
        f"LoadCredential=dora-token:{escape_specifiers(paths.token)}",
        *([f"EnvironmentFile=-{environment}"] if machine.env else []),
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def _start_nodes_unit(machine: Machine, paths: ServicePaths) -> str:
    """Return the Exec value that starts the transient unit of the nodes.

    Without this unit, systemd warns about every runner and node when the daemon restarts.
    """
    unit = nodes_unit(machine)
    user = paths.user is None
    properties = {
        "Type": "oneshot",
        "RemainAfterExit": "yes",
        **({} if user else {"User": paths.user}),
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
    # the unit exists after its first start, also when it was stopped
    restart = f"systemctl {manager} --quiet start {unit} 2>/dev/null"
    # `-`: the daemon starts even if this fails; `+`: as root, not as User
    prefix = "-" if user else "-+"
    return prefix + exec_line(["/bin/sh", "-c", f"{restart} || exec {' '.join(run)}"])


def render_environment(machine: Machine) -> str | None:
    """Return the text of the environment file; None if the machine has no `env`."""
    return environment_file(machine.env) if machine.env else None
