"""The coordinator of a cluster: the one that runs, or one that is started on this machine."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable

from dora_cli.coordinator import background
from dora_cli.coordinator.client import Client, CoordinatorUnreachable
from dora_config import DoraError
from dora_config.access import DEFAULT_HOST, Endpoint, endpoint
from dora_config.cluster.models import Cluster
from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DaemonSummary,
    Destroy,
    Destroyed,
)
from dora_config.spawn_argv import run_module

START_TIMEOUT = 30.0
CONNECT_TIMEOUT = 30.0
"""Seconds for daemons that were started to connect."""
POLL_INTERVAL = 0.5


class NotHere(DoraError):
    """The coordinator's address is none of this machine, and nobody answers there."""


def where(cluster: Cluster) -> Endpoint:
    """The coordinator's address and this account's token."""
    return endpoint(cluster.coordinator.addr, cluster.coordinator.port)


def report(cluster: Cluster) -> ClusterReport | None:
    """What the coordinator says of its daemons, None when none answers."""
    try:
        with Client(where(cluster)) as client:
            return client.ask(ClusterStatus(), ClusterReport)
    except CoordinatorUnreachable:
        return None


def connected(found: ClusterReport | None) -> dict[str, DaemonSummary]:
    """Connected daemons by machine id."""
    daemons = found.daemons if found is not None else ()
    return {one.machine_id: one for one in daemons if one.connected and one.machine_id is not None}


def arguments(cluster: Cluster) -> list[str]:
    """The coordinator's arguments: it listens at the address in the file, and at loopback, where
    the commands on its machine look for it.
    """
    address = cluster.coordinator.addr
    words = ["--interface", DEFAULT_HOST] if address != DEFAULT_HOST else []
    return [*words, "--interface", address, "--port", str(cluster.coordinator.port)]


def start(cluster: Cluster, *, recreate_store: bool = False) -> background.BackgroundProcess:
    """Start it in the background and wait until it answers; raises NotHere and NotStarted."""
    require_own(cluster.coordinator.addr)
    words = [*run_module("dora_coordinator.command"), *arguments(cluster)]
    words += ["--recreate-store"] if recreate_store else []
    process = background.start("coordinator", words)
    process.wait_until(lambda: report(cluster) is not None, within=START_TIMEOUT)
    return process


def require_own(address: str) -> None:
    """Raise NotHere unless this machine has the address."""
    if not is_own(address):
        raise NotHere(
            f"no coordinator answers at {address}, and that is not an address of this machine; "
            "run this command on the machine that has it, start `dora coordinator` there, or "
            "correct coordinator.addr in the cluster file"
        )


def is_own(address: str) -> bool:
    """Whether this machine has the address."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def wait_for(
    cluster: Cluster,
    wanted: Iterable[str],
    *,
    within: float = CONNECT_TIMEOUT,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, DaemonSummary]:
    """Until these machines are connected, or the time is over; those that are."""
    names = set(wanted)
    deadline = clock() + within
    while True:
        found = connected(report(cluster))
        if names <= found.keys() or clock() > deadline:
            return found
        time.sleep(POLL_INTERVAL)


def end(cluster: Cluster) -> None:
    """End the coordinator and every daemon that is connected, dataflows first."""
    try:
        with Client(where(cluster)) as client:
            client.ask(Destroy(force=True), Destroyed)
            client.wait_until_gone()
    except CoordinatorUnreachable:
        return


def end_unused(cluster: Cluster, begun: background.BackgroundProcess) -> bool:
    """End the coordinator that was begun here, unless another command uses it; whether it was."""
    if begun.process.poll() is not None:
        return False  # the one that answers was started by another command
    found = report(cluster)
    if found is None:
        return True
    if found.active_dataflows or any(one.connected for one in found.daemons):
        return False
    end(cluster)
    return True
