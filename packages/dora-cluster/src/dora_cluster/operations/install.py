"""`dora cluster install` and `uninstall`: coordinator and daemons as systemd services."""

from __future__ import annotations

from contextlib import suppress

from dora_cli import output
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorLost, CoordinatorUnavailable
from dora_cluster.bundle.install import Installer, probe
from dora_cluster.bundle.layout import Layout
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.installation import install_coordinator, uninstall_coordinator
from dora_cluster.coordinator.promoted import remove_promoted
from dora_cluster.coordinator.tokens import trust_local_authority
from dora_cluster.decisions.preflight import (
    MachineFacts,
    require_one_kind,
    require_ready,
    warnings,
)
from dora_cluster.decisions.units import daemon_arguments
from dora_cluster.machines.daemon_service import DaemonService, stop_for_service
from dora_cluster.machines.remote_machine import (
    RemoteMachine,
    Report,
    layout_of,
    on_machines,
    success_count,
)
from dora_cluster.operations import leftovers
from dora_cluster.operations.steps import DaemonResult, print_remarks
from dora_cluster.ownership import known_clusters
from dora_cluster.ownership.reservation import ClusterCommand, Reservation, reserve
from dora_config.access import ensure_token, forget_moves, state_dir
from dora_config.access_token import Token
from dora_config.cluster.models import Cluster, Machine
from dora_config.control_plane import Untrusted
from dora_config.protocol.control import ClusterReport
from dora_coordinator.io.authority import Authority

_NOT_INSTALLED = "OK (it was not installed)"
_STILL_RUNS = "OK (not installed; its daemon keeps running, `dora cluster down` ends it)"


def uninstall_services(
    file: Cluster, cluster: Cluster, installer: Installer, command: ClusterCommand
) -> bool:
    """Remove everything, also coordinators that were replaced; return whether that succeeded.

    ``file``: the cluster as the file describes it; ``cluster``: as it is now.
    """

    def work(remote: RemoteMachine, report: Report) -> str:
        return _uninstall(remote, installer, report)

    with reserve(cluster, command) as reservation:
        label = "Uninstalling dora-daemon-{id} from {target}"
        done = on_machines(cluster, label, work, connections=reservation.connections)
        output.write(success_count(done))
        places = [cluster] if file.coordinator.addr == cluster.coordinator.addr else [cluster, file]
        removed = [uninstall_coordinator(one, installer) for one in places]
        for one in done:
            if one.ok and one.result != _STILL_RUNS and _has_coordinator(cluster, one.machine):
                with reservation.connections.open(one.machine) as connection:
                    remove_promoted(RemoteMachine(cluster, one.machine, connection), installer)
    if not all(removed) or not all(one.ok for one in done):
        return False
    if not any(one.result == _STILL_RUNS for one in done):
        known_clusters.forget(cluster)
        place = cluster.coordinator
        forget_moves(place.addr, place.port, *place.former)
    return True


def _has_coordinator(cluster: Cluster, machine: Machine) -> bool:
    return machine.address == cluster.coordinator.addr


def _uninstall(remote: RemoteMachine, installer: Installer, report: Report) -> str:
    facts = remote.facts()
    services = DaemonService.find_all(remote, facts)
    if not _has_coordinator(remote.cluster, remote.machine):
        remove_promoted(remote, installer)  # the coordinator there may be one that was replaced
    if not services:
        return _NOT_INSTALLED if facts.daemon is None else _STILL_RUNS
    layouts = [
        layout_of(remote.machine, user=service.user)
        for service in services
        if remote.machine.dora is None and not service.has_siblings()
    ]
    for layout in layouts:
        probe(remote.connection, layout)  # refuses a wrong prefix before anything is changed
    report("stopping the service")
    for service in services:
        service.disable()
    remote.call("daemon.clean", name=remote.machine.daemon, keep_state=False)
    for layout in layouts:
        report("removing dora")
        installer.remove(remote.connection, layout)
    for service in services:
        service.remove_unit()
    return "OK"


def install_services(
    cluster: Cluster,
    installer: Installer,
    command: ClusterCommand,
    *,
    user: bool,
    coordinator: bool = True,
) -> bool:
    """Install all services.

    Return whether every machine has its service and, if the coordinator runs, is connected.
    """
    with reserve(cluster, command) as reservation:
        token, _ = ensure_token(Authority(state_dir() / "coordinator" / "authority").sha256)
        before = _require_own_coordinator(cluster)

        def work(remote: RemoteMachine, report: Report) -> DaemonResult:
            layout = layout_of(remote.machine, user=user)
            lost = before is not None and remote.machine.id not in queries.connected_daemons(before)
            return install_service(remote, installer, layout, token, reservation, report, lost=lost)

        ready = not coordinator or install_coordinator(cluster, installer, token, user=user)
        trust_local_authority(cluster)
        with suppress(CoordinatorUnavailable):  # `up` sends the standbys once a coordinator runs
            queries.set_standbys(cluster)
        token = queries.machine_token(cluster) or str(Token.parse(token).for_machine)
        label = "Installing dora-daemon-{id} on {target}"
        done = on_machines(cluster, label, work, connections=reservation.connections)
        print_remarks(done)
        output.write(success_count(done))
        now = queries.connected_daemons(queries.fetch_report(cluster))
        leftovers.report_on_machines(reservation, now.values())
        connected = all(one.ok for one in done) and _connected(
            cluster, [d.machine.id for d in done]
        )
        return ready and connected


def install_service(
    remote: RemoteMachine,
    installer: Installer,
    layout: Layout,
    token: str,
    reservation: Reservation,
    report: Report,
    *,
    lost: bool,
) -> DaemonResult:
    """Install the service of one machine, or complete its installation.

    ``lost``: the coordinator runs, but the machine is not connected, perhaps due to its key.
    """
    facts = remote.facts()
    require_ready(facts, remote.machine, service=True)
    require_one_kind(facts, remote.service, user=not layout.sudo)
    remote.connection.check(["true"], sudo=layout.sudo)  # fails before anything is changed
    if leftovers.take_over(remote, reservation, report):
        facts = remote.facts()
    service = DaemonService(remote, facts, user=not layout.sudo)
    tree = None
    if remote.machine.dora is not None:
        dora = remote.machine.dora
    else:
        put = installer.ensure_installed(remote.connection, layout, report)
        dora, tree = put.dora, put.tree
    if facts.daemon is not None and not service.is_active():
        report("handing over")  # the daemon of `up` ends; its dataflows keep running
        stop_for_service(remote)
    report("starting the service")
    reservation.record_owner(remote)
    text = service.install(
        dora,
        token,
        stale=lost or not _is_current(remote, facts, tree),
        before_restart=lambda: queries.allow_new_key(remote.cluster, remote.machine.id),
    )
    return DaemonResult(text, tuple(warnings(facts)))


def _is_current(remote: RemoteMachine, facts: MachineFacts, tree: str | None) -> bool:
    """Return whether the daemon runs from the tree (None: any) with the present arguments."""
    if facts.daemon is None:
        return False
    arguments = tuple(daemon_arguments(remote.cluster, remote.machine))
    return facts.daemon.arguments == arguments and tree in (None, facts.daemon.tree)


def _require_own_coordinator(cluster: Cluster) -> ClusterReport | None:
    """Return the coordinator's report, if it answers; raise DoraError for one of another token.

    A coordinator on another machine is not checked: its authority is read there over SSH.
    """
    try:
        return queries.fetch_report(cluster)
    except Untrusted:
        if cluster.coordinator.host is None:
            raise
        return None


def _connected(cluster: Cluster, wanted: list[str]) -> bool:
    with suppress(CoordinatorBusy, CoordinatorLost):
        if queries.report_if_running(cluster) is None:
            output.remark(
                f"No coordinator answers at {queries.endpoint_of(cluster)} yet; the daemons "
                "connect when it runs: start it with `dora cluster up`"
            )
            return True
    found = queries.wait_for_daemons(cluster, wanted)
    missing = [name for name in wanted if name not in found]
    if missing:
        output.remark(
            f"not connected within {queries.CONNECT_TIMEOUT:g} s: {', '.join(missing)}; "
            "see `dora cluster logs` and `dora doctor`"
        )
    return not missing
