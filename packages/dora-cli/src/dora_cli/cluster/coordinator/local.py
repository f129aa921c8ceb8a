"""A coordinator that runs in the background of this machine."""

from __future__ import annotations

import socket

from dora_cli.cluster.coordinator import queries
from dora_cli.coordinator import background
from dora_config.access import DEFAULT_HOST
from dora_config.cluster.models import Cluster
from dora_config.errors import DoraError
from dora_config.spawn_argv import run_module

MODULE = "dora_coordinator.command"
PRINT_VERSION = "from dora_coordinator._version import __version__; print(__version__)"
PRINT_STORE = (
    "from dora_coordinator.io.store_format import SCHEMA_VERSION; print('%d.%d' % SCHEMA_VERSION)"
)
START_TIMEOUT = 30.0


class NotLocal(DoraError):
    """The coordinator's address does not belong to this machine, and nothing answers there."""


def coordinator_arguments(cluster: Cluster) -> list[str]:
    """Return the coordinator's arguments.

    It listens at its address in the file, and at loopback for the commands on its machine.
    """
    address = cluster.coordinator.addr
    words = ["--interface", DEFAULT_HOST] if address != DEFAULT_HOST else []
    return [*words, "--interface", address, "--port", str(cluster.coordinator.port)]


def start_coordinator(
    cluster: Cluster, *, recreate_store: bool = False
) -> background.BackgroundProcess:
    """Start it and wait until it answers; raises NotLocal, NotStarted and CoordinatorBusy."""
    address = cluster.coordinator.addr
    if not is_local(address):
        raise NotLocal(
            f"no coordinator answers at {address}, which is not an address of this machine; "
            "run this command on the machine with that address, start `dora coordinator` there, "
            "or correct coordinator.addr in the cluster file"
        )
    words = [*run_module(MODULE), *coordinator_arguments(cluster)]
    words += ["--recreate-store"] if recreate_store else []
    process = background.start("coordinator", words)
    process.wait_until(lambda: queries.report_if_running(cluster) is not None, within=START_TIMEOUT)
    background.warn_unless_exported()
    return process


def is_local(address: str) -> bool:
    """Return whether this machine has the address."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def end_if_unused(cluster: Cluster, started: background.BackgroundProcess) -> bool:
    """End a coordinator that this command started, unless it has daemons or dataflows.

    Return whether it has ended. Raises CoordinatorBusy.
    """
    if started.process.poll() is not None:
        return False  # another command started the one that answers
    report = queries.report_if_running(cluster)
    if report is None:
        return True
    if report.active_dataflows or any(one.connected for one in report.machines):
        return False
    queries.destroy(cluster)
    return True
