"""How the daemon of a machine is started: the one command line that `up` and the unit use; pure."""

from __future__ import annotations

from dora_config.cluster.models import DEFAULT_DAEMON_PORT, Cluster, Machine


def daemon_arguments(cluster: Cluster, machine: Machine) -> list[str]:
    """The words after `dora`; nothing secret is among them."""
    words = ["daemon", "--machine-id", machine.id]
    words += ["--coordinator-addr", cluster.coordinator.addr]
    words += ["--coordinator-port", str(cluster.coordinator.port)]
    if machine.labels:
        pairs = (f"{key}={value}" for key, value in sorted(machine.labels.items()))
        words += ["--labels", ",".join(pairs)]
    if machine.daemon_port != DEFAULT_DAEMON_PORT:
        words += ["--local-listen-port", str(machine.daemon_port)]
    if machine.zenoh_addr is not None:
        words += ["--zenoh-listen", _listen(machine.zenoh_addr, machine.zenoh_port)]
    return [*words, "--quiet"]


def _listen(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def daemon_name(machine: Machine) -> str:
    """What the daemon calls itself on its machine: the name of its folder under the state."""
    if machine.daemon_port == DEFAULT_DAEMON_PORT:
        return machine.id
    return f"{machine.id}@{machine.daemon_port}"


def ssh_name(machine: Machine) -> str:
    """``robot (ubuntu@10.0.0.2)``"""
    return f"{machine.id} ({machine.target})"
