"""Systemd units of daemons and of the coordinator; command line of a daemon; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dora_cluster.remote_program.paths import unit_words
from dora_config.access import address_text
from dora_config.cluster.models import (
    DEFAULT_COORDINATOR_PORT,
    DEFAULT_DAEMON_PORT,
    Cluster,
    Machine,
)

STOP_TIMEOUT = 60
"""Seconds for the machine's dataflows to end."""
HAND_OVER_SIGNAL = "SIGUSR2"
"""Signal after which the daemon ends without its nodes; the next daemon adopts them."""

_SPECIAL = re.compile(r'[\\"$`]')
_ESCAPED = r"\\\g<0>"

_VERSION = re.compile(r"^# dora (\S+)$", re.MULTILINE)
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
    return next(iter(unit_words(text)), "")


def exec_line(words: Sequence[str]) -> str:
    """Return the value of an Exec setting; systemd expands nothing in it."""
    return " ".join(word if _is_plain(word) else quote(word.replace("$", "$$")) for word in words)


def quote(text: str) -> str:
    """Return the text in double quotes; ``$`` keeps its meaning."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape_specifiers(safe)}"'


def escape_specifiers(text: str) -> str:
    """Return the text with ``%`` doubled, so that systemd expands no specifier."""
    return text.replace("%", "%%")


def environment_file(variables: Mapping[str, str]) -> str:
    """Return the text of a file for EnvironmentFile, sorted by name."""
    pairs = sorted(variables.items())
    return "".join(f'{name}="{_SPECIAL.sub(_ESCAPED, text)}"\n' for name, text in pairs)


def _is_plain(word: str) -> bool:
    return word != "" and all(char.isalnum() or char in "/._-=,:@+" for char in word)


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


def daemon_arguments(cluster: Cluster, machine: Machine) -> list[str]:
    """Return the arguments of `dora`; none of them is secret."""
    words = ["daemon", "--machine-id", machine.id]
    words += ["--coordinator-addr", cluster.coordinator.addr]
    words += ["--coordinator-port", str(cluster.coordinator.port)]
    if machine.labels:
        pairs = (f"{key}={value}" for key, value in sorted(machine.labels.items()))
        words += ["--labels", ",".join(pairs)]
    if machine.daemon_port != DEFAULT_DAEMON_PORT:
        words += ["--local-listen-port", str(machine.daemon_port)]
    if machine.zenoh_addr is not None:
        address, port = machine.zenoh_addr, machine.zenoh_port
        words += ["--zenoh-listen", address if port is None else address_text(address, port)]
    if cluster.links == "plain":
        words += ["--links", "plain"]
    if cluster.offline_after is not None:
        words += ["--offline-after", f"{cluster.offline_after:g}"]
    return [*words, "--quiet"]
