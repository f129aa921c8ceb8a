"""`dora cluster down`: ends dataflows, daemons and the coordinator, and checks every machine."""

from __future__ import annotations

from pathlib import Path

from dora_cli import output
from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnavailable, CoordinatorUnreachable
from dora_cluster.bundle.install import Installer
from dora_cluster.bundle.layout import USER
from dora_cluster.coordinator.service import stop_service
from dora_cluster.machines.daemon_service import DaemonService, stop_and_clean
from dora_cluster.machines.remote_machine import RemoteMachine, Report, on_machines
from dora_cluster.operations import leftovers
from dora_cluster.ownership import known_clusters
from dora_cluster.ownership.reservation import ClusterCommand, Reservation, reserve
from dora_config.access import Endpoint
from dora_config.cluster.models import Cluster
from dora_config.protocol.control import Destroy


def bring_down(address: Endpoint, cluster: Cluster | None, *, purge: bool) -> bool:
    """End everything; return whether nothing is left.

    ``cluster``: its machines; None: the recorded machines of the coordinator at ``address``.
    """
    known = cluster if cluster is not None else known_clusters.find(address)
    if known is None:
        return _all_ended(_destroy(address))
    file = Path(known_clusters.file_of(known))
    command = ClusterCommand("down", file, refuses=False, surveys_all=True)
    former = known_clusters.former_machines(known)
    with reserve(known, command, [*known.machines, *former]) as reservation:
        left = _end_coordinator(address)
        stop_service(known)

        def work(remote: RemoteMachine, report: Report) -> str:
            return _clear(remote, reservation, report, purge=purge)

        done = on_machines(known, "Clearing {name}", work, connections=reservation.connections)
        others = {one.id for _, one in reservation.leftovers()}
        removed = leftovers.remove_from_machines(reservation)
        if left is None:
            left = _end_coordinator_again(address)
    if not all(one.ok for one in done) or not removed:
        output.remark("Run this command again when the failed machines can be reached.")
        return False
    if left is None:
        return False
    if not _all_ended(left - others - {one.id for one in known.machines}):
        return False
    known_clusters.forget(known)
    return True


def _end_coordinator(address: Endpoint) -> frozenset[str] | None:
    """End it with its daemons; return those that did not answer, None if it may still run."""
    try:
        return _destroy(address)
    except CoordinatorUnavailable as error:
        output.remark(f"{error}; the machines are cleared anyway")
        return frozenset() if isinstance(error, CoordinatorUnreachable) else None


def _end_coordinator_again(address: Endpoint) -> frozenset[str] | None:
    """End a coordinator after the machines, whose daemons had connections."""
    try:
        return _destroy(address)
    except CoordinatorUnreachable:
        return frozenset()  # the coordinator was a service, or has ended
    except CoordinatorUnavailable as error:
        output.failure(f"the coordinator was not ended: {error}")
        return None


def _all_ended(left: frozenset[str]) -> bool:
    """Return whether no daemon is left; list those that are."""
    if left:
        output.warn(
            f"did not answer the coordinator, and may still run: {', '.join(sorted(left))}; end "
            "these daemons on their machines, or name the cluster file: dora cluster down PATH"
        )
    return not left


def _destroy(address: Endpoint) -> frozenset[str]:
    """End it with its daemons, and print what has ended; return daemons that did not answer.

    Raises what `CoordinatorClient` raises.
    """
    with CoordinatorClient(address) as client:
        ended = client.request(Destroy(force=True))
        client.wait_until_gone()
    for dataflow in ended.dataflows:
        output.write(f"Dataflow {dataflow.name or dataflow.uuid} stopped")
    output.write(f"Coordinator on {address}{'' if ended.left else ' and its daemons'} ended")
    return frozenset(ended.left)


def _clear(remote: RemoteMachine, reservation: Reservation, report: Report, *, purge: bool) -> str:
    facts = remote.facts()
    conflicts = reservation.conflicts(remote.machine)
    foreign = {one.daemon.id for one in conflicts if one.kind == "other cluster"}
    if remote.machine.id in foreign:
        return "OK (a daemon of another cluster runs there)"
    service = DaemonService.find(remote, facts)
    if service is not None:
        if service.is_active():
            report("stopping the service")
            service.stop()
        return "OK (its service starts again with the machine; see `dora cluster uninstall`)"
    report("stopping")
    stop_and_clean(remote)
    if purge and remote.machine.dora is None:
        report("removing dora")
        Installer().remove(remote.connection, USER)
    return "OK"
