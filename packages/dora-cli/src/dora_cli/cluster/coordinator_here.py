"""The coordinator of a cluster: the one that runs, or one that is started on this machine."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable

from dora_cli import background
from dora_cli.client import Client, CoordinatorUnreachable
from dora_config import DoraError
from dora_config.access import Endpoint, endpoint
from dora_config.cluster import Cluster
from dora_config.own_python import run_module
from dora_config.protocol.control import (
    ClusterReport,
    ClusterStatus,
    DaemonSummary,
    Destroy,
    Destroyed,
)

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


def start(cluster: Cluster) -> background.Background:
    """Start it in the background and wait until it answers; raises NotHere and NotStarted."""
    address, port = cluster.coordinator.addr, cluster.coordinator.port
    _require_own(address)
    every = "::" if ":" in address else "0.0.0.0"  # also loopback, for the commands given here
    words = [*run_module("dora_coordinator.command"), "--interface", every, "--port", str(port)]
    process = background.start("coordinator", words)
    process.wait_until(lambda: report(cluster) is not None, within=START_TIMEOUT)
    return process


def _require_own(address: str) -> None:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            raise NotHere(
                f"no coordinator answers at {address}, and that is not an address of this machine; "
                "run this command on the machine that has it, start `dora coordinator` there, or "
                "correct coordinator.addr in the cluster file"
            ) from None


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


def end_unused(cluster: Cluster, begun: background.Background) -> bool:
    """End the coordinator that was begun here, unless another command uses it; whether it was."""
    if begun.process.poll() is not None:
        return False  # the one that answers was started by another command
    try:
        with Client(where(cluster)) as client:
            found = client.ask(ClusterStatus(), ClusterReport)
            if found.active_dataflows or any(one.connected for one in found.daemons):
                return False
            client.ask(Destroy(force=True), Destroyed)
            client.wait_until_gone()
    except CoordinatorUnreachable:
        return True
    return True
