"""Command line and names of a machine's daemon, the same for `up` and the systemd unit; pure."""

from __future__ import annotations

from dora_config.access import address_text
from dora_config.cluster.models import DEFAULT_DAEMON_PORT, Cluster, Machine


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


def daemon_name(machine: Machine) -> str:
    """Return the name of the daemon's state folder on its machine."""
    if machine.daemon_port == DEFAULT_DAEMON_PORT:
        return machine.id
    return f"{machine.id}@{machine.daemon_port}"


def ssh_name(machine: Machine) -> str:
    """Return the machine's name in messages: ``robot (ubuntu@10.0.0.2)``."""
    return f"{machine.id} ({machine.target})"


def without_name(message: str, name: str) -> str:
    """Return a message without the machine's name, for a line that begins with it already."""
    return message.removeprefix(f"{name}: ")
