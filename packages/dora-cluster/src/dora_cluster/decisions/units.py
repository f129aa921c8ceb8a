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


@dataclass(frozen=True, slots=True)
class ServiceFiles:
    """Absolute paths of the files of a service, readable by root (or the user) only."""

    token: str
    environment: str
    """Further variables; the file need not exist."""
    user: str | None
    """The account that runs a system service; None: a unit of the user's own systemd."""


def _unit(
    description: str, service: Sequence[str], files: ServiceFiles, *, after: Sequence[str] = ()
) -> str:
    """Return the text of a unit file; ``service``: its own settings."""
    system = files.user is not None
    network = ["After=network-online.target", "Wants=network-online.target"]
    lines = [
        "# Written by `dora cluster install`, removed by `dora cluster uninstall`.",
        "[Unit]",
        f"Description={description}",
        *(network if system else ()),
        *(f"After={unit}" for unit in after),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        *([f"User={files.user}"] if system else ()),
        "WorkingDirectory=~",
        f"EnvironmentFile=-{escape_specifiers(files.environment)}",
        f"LoadCredential=dora-token:{escape_specifiers(files.token)}",
        "LimitNOFILE=65536",
        *service,
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if system else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def render_coordinator_unit(
    cluster: Cluster,
    argv: Sequence[str],
    files: ServiceFiles,
    *,
    version: str,
    environment: Mapping[str, str],
) -> str:
    """Return the text of the unit file, from which `unit_address` and others read."""
    variables = (quote(f"{name}={text}") for name, text in sorted(environment.items()))
    service = [
        f"# dora {version}",
        *(f"Environment={text}" for text in variables),
        f"ExecStart={exec_line(argv)}",
        # on-failure: after `dora down` it exits with code 0
        "Restart=on-failure",
        "RestartSec=2",
        "TimeoutStopSec=20",
    ]
    return _unit(f"Dora Coordinator ({address(cluster)})", service, files)


def address(cluster: Cluster) -> str:
    """Return the coordinator's address: ``10.0.0.1:6013``."""
    return address_text(cluster.coordinator.addr, cluster.coordinator.port)


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


def service_name(machine: Machine) -> str:
    """Return the name of the unit without ``.service``."""
    return f"dora-daemon-{machine.id}"


def nodes_unit(machine: Machine) -> str:
    """Return the unit of the daemon's runners and nodes, which keep running without it."""
    return f"dora-nodes-{machine.id}.service"


def render_unit(cluster: Cluster, machine: Machine, dora: str, files: ServiceFiles) -> str:
    """Return the text of the unit file; ``dora``: absolute path of the command."""
    name, nodes = service_name(machine), nodes_unit(machine)
    service = [
        f"Environment=DORA_RUNNERS_UNIT={'user' if files.user is None else 'system'}:{nodes}",
        f"ExecStartPre={_start_nodes_unit(machine, files.user)}",
        f"ExecStart={exec_line([dora, *daemon_arguments(cluster, machine)])}",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=process",
        "KillSignal=SIGTERM",
        f"RestartKillSignal={HAND_OVER_SIGNAL}",
        f"TimeoutStopSec={STOP_TIMEOUT}",
        "OOMPolicy=continue",
        "Delegate=yes",
        f"RuntimeDirectory={name}",
        "RuntimeDirectoryMode=0700",
        "RuntimeDirectoryPreserve=yes",
    ]
    # dbus: an ending daemon queries systemd for a shutdown of the machine
    # nodes: at shutdown the daemon ends first, and ends its dataflows
    after = ["dbus.service", nodes]
    return _unit(f"Dora Daemon ({machine.id})", service, files, after=after)


def _start_nodes_unit(machine: Machine, user: str | None) -> str:
    """Return the Exec value that starts the transient unit of the nodes.

    Without this unit, systemd warns about every runner and node when the daemon restarts.
    """
    unit = nodes_unit(machine)
    properties = {
        "Type": "oneshot",
        "RemainAfterExit": "yes",
        **({} if user is None else {"User": user}),
        "Delegate": "yes",
        "OOMPolicy": "continue",
        "TimeoutStopSec": STOP_TIMEOUT,
    }
    manager = "--user" if user is None else "--system"
    run = [
        *("systemd-run", manager, "--quiet", "--collect", f"--unit={unit}"),
        f"--description='Nodes of Dora Daemon ({machine.id})'",
        *(f"--property={name}={value}" for name, value in properties.items()),
        "true",
    ]
    # the unit exists after its first start, also when it was stopped
    restart = f"systemctl {manager} --quiet start {unit} 2>/dev/null"
    # `-`: the daemon starts even if this fails; `+`: as root, not as User
    prefix = "-" if user is None else "-+"
    return prefix + exec_line(["/bin/sh", "-c", f"{restart} || exec {' '.join(run)}"])


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
