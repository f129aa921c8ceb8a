"""`dora cluster down`: ends dataflows, daemons and the coordinator, and checks every machine."""

from __future__ import annotations

from pathlib import Path

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import USER
from dora_cli.cluster.coordinator.service_control import stop_service
from dora_cli.cluster.machines.background_daemon import stop_and_clean
from dora_cli.cluster.machines.daemon_service import DaemonService
from dora_cli.cluster.machines.parallel import Report, on_machines
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.operations import leftovers
from dora_cli.cluster.ownership import known_clusters
from dora_cli.cluster.ownership.reservation import ClusterCommand, Reservation, reserve
from dora_cli.coordinator.client import Client
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorUnreachable
from dora_config.access import Endpoint
from dora_config.cluster.models import Cluster
from dora_config.protocol.control import Destroy, Destroyed


def bring_down(address: Endpoint, cluster: Cluster | None, *, purge: bool) -> bool:
    """End everything; return whether nothing is left.

    ``cluster``: its machines; None: the recorded machines of the coordinator at ``address``.
    """
    known = cluster if cluster is not None else known_clusters.find(address)
    if known is None:
        _end_coordinator(address, known)
        return True
    file = Path(known_clusters.file_of(known))
    command = ClusterCommand("down", file, refuses=False, surveys_all=True)
    former = known_clusters.former_machines(known)
    with reserve(known, command, [*known.machines, *former]) as reservation:
        ended = _end_coordinator(address, known)
        stop_service(known)

        def work(remote: RemoteMachine, report: Report) -> str:
            return _clear(remote, reservation, report, purge=purge)

        done = on_machines(known, "Clearing {name}", work, describe=str, source=reservation)
        removed = leftovers.remove_from_machines(reservation)
        ended = ended or _end_busy_coordinator(address)
    if not all(one.ok for one in done) or not removed:
        output.remark("Run this command again when the failed machines can be reached.")
        return False
    if not ended:
        return False
    known_clusters.forget(known)
    return True


def _end_coordinator(address: Endpoint, known: Cluster | None) -> bool:
    """End it with its daemons; return False if it is busy.

    Raises CoordinatorUnreachable and CoordinatorBusy if no machines are known either.
    """
    try:
        _destroy(address)
    except (CoordinatorUnreachable, CoordinatorBusy) as error:
        if known is None:
            raise
        output.remark(f"{error}; the machines are cleared anyway")
        return isinstance(error, CoordinatorUnreachable)
    return True


def _end_busy_coordinator(address: Endpoint) -> bool:
    """End it after the machines, whose daemons had connections; return False if it is busy."""
    try:
        _destroy(address)
    except CoordinatorBusy as error:
        output.failure(f"the coordinator was not ended: {error}")
        return False
    except CoordinatorUnreachable:
        pass  # it was a service
    return True


def _destroy(address: Endpoint) -> None:
    """End it with its daemons, and print what has ended; raises what `Client` raises."""
    with Client(address) as client:
        ended = client.request(Destroy(force=True), Destroyed)
        client.wait_until_gone()
    for dataflow in ended.dataflows:
        output.write(f"Dataflow {dataflow.name or dataflow.uuid} stopped")
    output.write(f"Coordinator on {address} and its daemons ended")


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
