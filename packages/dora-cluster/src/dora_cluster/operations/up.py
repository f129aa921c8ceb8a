"""`dora cluster up`: a coordinator here, and a daemon in the background of every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dora_cli import output
from dora_cluster._version import __version__
from dora_cluster.bundle.install import Installer
from dora_cluster.bundle.layout import USER
from dora_cluster.coordinator import local, queries
from dora_cluster.coordinator.promoted import start_promoted
from dora_cluster.coordinator.service import start_service
from dora_cluster.coordinator.tokens import deliver_token, trust_local_authority
from dora_cluster.decisions.preflight import (
    MachineFacts,
    NotReady,
    disk_problems,
    require_ready,
    unresponsive_daemon,
    warnings,
)
from dora_cluster.errors import RemoteCommandFailed
from dora_cluster.machines.daemon_service import (
    DaemonService,
    changed_settings,
    hand_over,
    last_lines,
    start_daemon,
)
from dora_cluster.machines.remote_machine import (
    MachineOutcome,
    RemoteMachine,
    Report,
    layout_of,
    on_machines,
)
from dora_cluster.operations import leftovers
from dora_cluster.operations.install import install_service
from dora_cluster.operations.steps import DaemonResult, print_remarks
from dora_cluster.ownership import known_clusters
from dora_cluster.ownership.reservation import ClusterCommand, Reservation, reserve
from dora_config.cluster.models import Cluster
from dora_config.protocol.snapshot import DaemonSummary

LAST_LINES = 20
"""Lines of the log that are shown of a daemon that did not connect."""


def bring_up(
    cluster: Cluster, installer: Installer, command: ClusterCommand, *, recreate_store: bool = False
) -> bool:
    """Start coordinator and daemons; return whether every daemon is connected."""
    with reserve(cluster, command) as reservation:
        address = queries.endpoint_of(cluster)
        known = queries.report_if_running(cluster)
        own = None
        if known is None:
            if cluster.coordinator.former and start_promoted(
                cluster, installer, recreate_store=recreate_store
            ):
                pass
            elif not start_service(cluster, recreate_store=recreate_store):
                own = local.start_coordinator(cluster, recreate_store=recreate_store)
            output.write(f"Starting coordinator on {address}... OK")
        else:
            output.write(f"Starting coordinator on {address}... runs already")
            if recreate_store:
                output.warn(
                    "its store is in use and was not changed; run `dora cluster down` first"
                )
        trust_local_authority(cluster)
        queries.set_standbys(cluster)
        connected = queries.connected_daemons(known)

        def work(remote: RemoteMachine, report: Report) -> DaemonResult:
            return _start_daemon(remote, installer, connected, reservation, report)

        label = "Starting daemon on {name}"
        done = on_machines(cluster, label, work, connections=reservation.connections)
        print_remarks(done)
        started = [one.machine.id for one in done if one.ok]
        if not started:
            if own is not None and local.end_if_unused(cluster, own):
                known_clusters.forget(cluster)
                output.remark("No daemon was started, so the coordinator was ended again.")
            return False
        found = queries.wait_for_daemons(cluster, started)
        now = queries.connected_daemons(queries.fetch_report(cluster))
        leftovers.report_on_machines(reservation, now.values())
        late = [one for one in done if one.ok and one.machine.id not in found]
        if late:
            _explain_late(cluster, late)
        return _summarize(cluster, [one for one in done if not one.ok], late)


def _summarize(
    cluster: Cluster,
    failed: Sequence[MachineOutcome[DaemonResult]],
    late: Sequence[MachineOutcome[DaemonResult]],
) -> bool:
    count = len(cluster.machines)
    if not failed and not late:
        output.write(f"All {count} daemons connected." if count > 1 else "The daemon connected.")
        return True
    missing = ", ".join(one.machine.id for one in (*failed, *late))
    there = count - len(failed) - len(late)
    output.write(f"Cluster partially up: {there} of {count} daemons connected, missing: {missing}")
    return False


def _start_daemon(
    remote: RemoteMachine,
    installer: Installer,
    connected: Mapping[str, DaemonSummary],
    reservation: Reservation,
    report: Report,
) -> DaemonResult:
    facts = remote.facts()
    require_ready(facts, remote.machine)
    if leftovers.take_over(remote, reservation, report):
        facts = remote.facts()
    remarks = tuple(warnings(facts))
    service = DaemonService.find(remote, facts)
    seen = connected.get(remote.machine.id)
    _require_healthy(remote, facts, seen)
    changed = changed_settings(remote, facts)
    if facts.missing_program and service is None:
        changed = changed or "program"
    elif seen is not None and not (changed and service is None and _same_version(remote, seen)):
        _require_same_machine(remote, facts, service, seen)
        if changed:
            command = "install" if service is not None else "upgrade"
            remarks += (
                f"{changed} in the cluster file changed since its daemon was started; run "
                f"`dora cluster {command}`",
            )
        return DaemonResult(f"runs already (dora {seen.release})", remarks)
    _require_coordinator(remote, report)
    if service is not None:
        report(f"starting {remote.service}")
        deliver_token(remote)
        queries.allow_new_key(remote.cluster, remote.machine.id)
        try:
            service.start()
        except RemoteCommandFailed:
            token = queries.machine_token(remote.cluster)
            if token is None or service.read(service.token) is not None:
                raise
            # An `install` was interrupted after it wrote the unit, its first file.
            layout = layout_of(remote.machine, user=service.user)
            return install_service(
                remote, installer, layout, token, reservation, report, lost=False
            )
        return DaemonResult(f"OK (service {remote.service})", remarks)
    dora = remote.machine.dora or installer.ensure_installed(remote.connection, USER, report).dora
    if facts.daemon is not None:  # its settings changed, or it cannot connect (an old token?)
        report("handing over")
        hand_over(remote)
    report("starting")
    reservation.record_owner(remote)
    queries.allow_new_key(remote.cluster, remote.machine.id)
    start_daemon(remote, dora, token=queries.machine_token(remote.cluster))
    return DaemonResult(f"OK (restarted with new {changed})" if changed else "OK", remarks)


def _require_healthy(
    remote: RemoteMachine, facts: MachineFacts, seen: DaemonSummary | None
) -> None:
    """Raise NotReady for a daemon that hangs or a full disk, so that no step waits for them."""
    problems = list(disk_problems(facts, remote.machine))
    problem = unresponsive_daemon(facts, seen)
    if problem is not None:
        problems.append(problem)
    if problems:
        raise NotReady("; ".join(problems))


def _same_version(remote: RemoteMachine, seen: DaemonSummary) -> bool:
    """Return whether a restart would not change the daemon's version."""
    return remote.machine.dora is not None or seen.release == __version__


def _require_same_machine(
    remote: RemoteMachine, facts: MachineFacts, service: DaemonService | None, seen: DaemonSummary
) -> None:
    if facts.daemon is None and (service is None or not service.is_active()):
        raise NotReady(
            f"another machine, at {seen.address or 'an unknown address'}, is connected with "
            f'machine id "{remote.machine.id}", and no daemon runs here; give each machine its '
            "own id"
        )


def _require_coordinator(remote: RemoteMachine, report: Report) -> None:
    report("connecting to the coordinator")
    address, port = remote.cluster.coordinator.addr, remote.cluster.coordinator.port
    found = remote.call("network.reach", host=address, port=port)
    if not found["reached"]:
        raise NotReady(
            f"the machine cannot reach the coordinator at {address} port {port}: "
            f"{found['reason']}; open the port, or correct coordinator.addr"
        )


def _explain_late(cluster: Cluster, late: Sequence[MachineOutcome[DaemonResult]]) -> None:
    """Print the last lines of daemons that were started and did not connect."""

    def work(remote: RemoteMachine, report: Report) -> list[str]:
        return last_lines(remote, remote.facts(), LAST_LINES)

    on_machines(
        cluster,
        f"Daemon on {{name}} did not connect within {queries.CONNECT_TIMEOUT:g} s",
        work,
        machines=[one.machine for one in late],
        describe=lambda lines: "".join(f"\n  {line}" for line in lines),
    )
