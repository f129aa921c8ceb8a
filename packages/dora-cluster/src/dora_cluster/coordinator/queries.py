"""Requests to the coordinator of a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from dora_cli.coordinator.client import QUERY_TIMEOUT, CoordinatorClient
from dora_cli.coordinator.errors import (
    CoordinatorBusy,
    CoordinatorLost,
    CoordinatorRefused,
    CoordinatorUnreachable,
)
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.decisions.promotion import promoted, standbys_of
from dora_config.access import Endpoint, address_text, endpoint, read_moved
from dora_config.access_token import Token
from dora_config.cluster.models import Cluster
from dora_config.protocol import control, fleet
from dora_config.protocol.reports import GetFleet
from dora_config.protocol.snapshot import DaemonSummary, NodeSummary

CONNECT_TIMEOUT = 30.0
"""Seconds for started daemons to connect."""
BUSY_TIMEOUT = 10.0
"""Seconds for a busy coordinator to accept a connection."""
CHECK_TIMEOUT = 90.0
"""Seconds for the check of a roll-out; the coordinator limits it to 60 s."""
POLL_INTERVAL = 0.5
"""Seconds between two requests while a command waits."""
Nodes = Mapping[tuple[str, str], NodeSummary]
"""Nodes with a process, by dataflow and node id."""


def endpoint_of(cluster: Cluster) -> Endpoint:
    """Return the coordinator's address with this account's token."""
    return endpoint(cluster.coordinator.addr, cluster.coordinator.port)


def machine_token(cluster: Cluster) -> str | None:
    """Return the token that the cluster's machines have, if this account has the cluster's."""
    token = endpoint_of(cluster).token
    return None if token is None else str(Token.parse(token).for_machine)


def open_client(cluster: Cluster) -> CoordinatorClient:
    """Connect to the coordinator; raises what `CoordinatorClient` raises."""
    return CoordinatorClient(endpoint_of(cluster))


def report_if_running(cluster: Cluster) -> control.ClusterReport | None:
    """Return the coordinator's report; None if none runs.

    Raises CoordinatorBusy and CoordinatorLost.
    """
    try:
        with open_client(cluster) as client:
            return client.request(control.ClusterStatus())
    except CoordinatorUnreachable:
        return None


def fetch_report(cluster: Cluster) -> control.ClusterReport | None:
    """Return the coordinator's report; None if it does not answer, or is busy.

    Raises CoordinatorRefused.
    """
    try:
        return report_if_running(cluster)
    except CoordinatorRefused:
        raise
    except (CoordinatorBusy, CoordinatorLost):
        return None


def release_of(cluster: Cluster) -> str:
    """Return the coordinator's version; empty if none runs; raises CoordinatorBusy."""
    report = report_if_running(cluster)
    return report.coordinator.release if report is not None else ""


def connected_daemons(report: control.ClusterReport | None) -> dict[str, DaemonSummary]:
    """Return the connected daemons of a report by machine id."""
    daemons = report.machines if report is not None else ()
    return {one.machine_id: one for one in daemons if one.connected and one.machine_id is not None}


def wait_for_daemons(
    cluster: Cluster, machine_ids: Iterable[str], *, within: float = CONNECT_TIMEOUT
) -> dict[str, DaemonSummary]:
    """Wait until these machines are connected or the time is over; return the connected ones."""
    wanted = set(machine_ids)
    deadline = time.monotonic() + within
    while True:
        found = connected_daemons(fetch_report(cluster))
        if wanted <= found.keys() or time.monotonic() > deadline:
            return found
        time.sleep(POLL_INTERVAL)


def fetch_nodes(cluster: Cluster) -> Nodes:
    """Return the nodes that have a process; empty if no coordinator answers.

    Raises CoordinatorBusy: its nodes are unknown, and may be running.
    """
    try:
        with open_client(cluster) as client:
            found = client.request(control.ListNodes()).nodes
    except (CoordinatorUnreachable, CoordinatorLost):
        return {}
    return {(one.dataflow, one.node): one for one in found if one.pid is not None}


def require_coordinator(cluster: Cluster) -> None:
    """Raise NotReady if no coordinator answers, CoordinatorBusy if it is busy."""
    if report_if_running(cluster) is None:
        raise NotReady(
            f"no coordinator answers at {endpoint_of(cluster)}; it must confirm that each daemon "
            "reconnects, so nothing was changed: start it with `dora cluster up`"
        )


def operators_pause(cluster: Cluster) -> str | None:
    """Return a text if an operator has paused the fleet; raises CoordinatorUnavailable."""
    with open_client(cluster) as client:
        return fleet.operators_pause(client.request(GetFleet()).paused)


def check_machine(cluster: Cluster, request: fleet.CheckMachine) -> None:
    """Run the command of a roll-out; raises RequestFailed if it fails or is not allowed.

    Raises CoordinatorUnavailable.
    """
    with open_client(cluster) as client:
        client.request(request, timeout=CHECK_TIMEOUT)


def remove_machines(cluster: Cluster, machine_ids: Iterable[str]) -> tuple[str, ...]:
    """Revoke the keys of machines and disconnect them; return those that had one.

    Raises CoordinatorUnavailable.
    """
    request = control.RemoveMachines(machines=tuple(machine_ids))
    with open_client(cluster) as client:
        return client.request(request).machines


def allow_new_key(cluster: Cluster, machine_id: str, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
    """Let the daemon that is about to be started over SSH enrol another key than before.

    A coordinator that is not running is ignored. Raises
    CoordinatorBusy if it is busy for more than ``busy_timeout`` seconds.
    """
    request = control.RemoveMachines(machines=(machine_id,), revoke=False)
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            with suppress(CoordinatorUnreachable, CoordinatorLost), open_client(cluster) as client:
                client.request(request, timeout=QUERY_TIMEOUT)
            return
        except CoordinatorBusy:
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_INTERVAL)


def _standbys_request(cluster: Cluster) -> control.SetStandbys:
    own = address_text(cluster.coordinator.addr, cluster.coordinator.port)
    return control.SetStandbys(address=own, standbys=standbys_of(cluster))


def set_standbys(cluster: Cluster) -> None:
    """Send the standbys of the file to the coordinator; raises CoordinatorUnavailable."""
    with open_client(cluster) as client:
        client.request(_standbys_request(cluster), timeout=QUERY_TIMEOUT)


@dataclass(frozen=True, slots=True)
class StandbyChange:
    """Difference between the standbys of the file and those of the coordinator."""

    request: control.SetStandbys
    before: str
    after: str


def standby_change(client: CoordinatorClient, file: Cluster) -> StandbyChange | None:
    """Compare the standbys of a file with the standbys of the coordinator; None: they are the same.

    Raises CoordinatorUnavailable.
    """
    request = _standbys_request(followed(file))
    wanted = [(one.machine, one.address) for one in request.standbys]
    report = client.request(control.ClusterStatus())
    present = [(one.machine, one.address) for one in report.standbys]
    if present == wanted:
        return None
    before, after = (", ".join(name for name, _ in one) or "none" for one in (present, wanted))
    return StandbyChange(request, before, after)


def followed(file: Cluster) -> Cluster:
    """Return the cluster with its coordinator where `dora cluster promote` has put it."""
    moved = read_moved(file.coordinator.addr, file.coordinator.port)
    return file if moved is None else promoted(file, moved)


def destroy(cluster: Cluster) -> None:
    """End the coordinator, the connected daemons and their dataflows; raises CoordinatorBusy."""
    with suppress(CoordinatorUnreachable), open_client(cluster) as client:
        client.request(control.Destroy(force=True))
        client.wait_until_gone()
