"""Removes daemons: for `remove`, for `--take-over`, and those that the file lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from dora_cli import output
from dora_cli.coordinator.errors import CoordinatorBusy, CoordinatorUnreachable
from dora_cluster.coordinator import queries
from dora_cluster.decisions.existing_daemons import ExistingDaemon, describe_conflicts
from dora_cluster.decisions.units import STOP_TIMEOUT
from dora_cluster.machines.daemon_service import DaemonService, stop_and_clean
from dora_cluster.machines.remote_machine import RemoteMachine, Report, on_machines
from dora_cluster.ownership import known_clusters
from dora_cluster.ownership.reservation import (
    ClusterCommand,
    Reservation,
    reserve,
    this_account,
)
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError
from dora_config.protocol.snapshot import DaemonSummary


def take_over(remote: RemoteMachine, reservation: Reservation, report: Report) -> bool:
    """End the daemons of others with their dataflows; return whether there were any."""
    foreign = [one.daemon for one in reservation.conflicts(remote.machine) if one.ends]
    for daemon in foreign:
        report(f'ending daemon "{daemon.id}" of {daemon.user}')
        evict(remote, daemon)
    return bool(foreign)


def evict(remote: RemoteMachine, daemon: ExistingDaemon) -> None:
    """End the daemon with its dataflows, and remove its service, token and state."""
    changes = {"id": daemon.id or "", "daemon_port": daemon.port}
    there = RemoteMachine(
        remote.cluster, remote.machine.model_copy(update=changes), remote.connection
    )
    service = None
    if daemon.service is not None:
        service = DaemonService(there, there.facts(), user=daemon.user_service)
        service.disable()
    if daemon.mine:
        stop_and_clean(there)
    elif daemon.pid is not None:
        there.call(
            "existing_daemons.end",
            sudo=True,
            timeout=STOP_TIMEOUT + 30.0,
            pid=daemon.pid,
            within=STOP_TIMEOUT,
        )
    if service is not None:
        service.remove_unit()


def report_on_machines(reservation: Reservation, daemons: Iterable[DaemonSummary]) -> None:
    """List the leftovers on reserved machines and those among the coordinator's ``daemons``."""
    seen = {}
    for machine, one in reservation.leftovers():
        seen[one.id or ""] = f"on {machine.label}"
    known = {machine.id for machine in reservation.cluster.machines}
    known_clusters.warn_of_leftovers(known, str(reservation.command.file), seen, daemons)


def remove(cluster: Cluster, command: ClusterCommand, names: Sequence[str]) -> bool:
    """Revoke the keys of these machines, end their daemons with their dataflows, and remove their
    state as far as the machines can be reached.

    Return whether all of them are gone. A machine whose key was revoked is gone: coordinator and
    links refuse it.
    """
    revoked = _revoke(cluster, names)
    former = [one for one in known_clusters.former_machines(cluster) if one.id in names]
    left = tuple(one for one in cluster.machines if one.id not in names)
    remaining = cluster.model_copy(update={"machines": left})
    for name in sorted({one.id for one in cluster.machines} & set(names)):
        output.remark(
            f'machine "{name}" is still in {command.file}; delete it there, or the next `dora '
            "cluster up` or `install` adds it again with a new key; if it could not be reached, "
            "only after its daemon's state was deleted there"
        )
    with reserve(remaining, command, [*cluster.machines, *former]) as reservation:
        found = {one.id for _, one in reservation.leftovers()} | {one.id for one in former}
        kept = _warn_of_kept(reservation, cluster, names)
        absent = set(names) - found - revoked - kept
        if absent:
            raise DoraError(
                f'no daemon "{", ".join(sorted(absent))}" of this cluster was found on the '
                "machines of the cluster file or of its earlier versions; end it on its machine"
            )
        ok = remove_from_machines(reservation, names)
    return (ok and not kept) or revoked.issuperset(names)


def _warn_of_kept(
    reservation: Reservation, cluster: Cluster, names: Sequence[str]
) -> set[str | None]:
    """Warn of machines whose daemon may still run, and return their ids.

    Either the machine was not examined, or others have set up the daemon.
    """
    kept: set[str | None] = set()
    operator, now = this_account(reservation.command.file), time.time()
    former = known_clusters.former_machines(cluster)
    here = [one for one in cluster.machines if one not in former]
    for machine in (*here, *former):
        foreign = [
            one
            for one in reservation.conflicts(machine)
            if one.daemon.id in names and one.daemon.coordinator_is_of(cluster)
        ]
        if foreign:
            text = describe_conflicts(machine.label, foreign, cluster, operator, now=now)
            output.warn(f"{text}\nit was not ended; the account that set it up can remove it")
            kept |= {one.daemon.id for one in foreign}
        if machine.id in names and machine in here and not _is_examined(reservation, machine):
            kept.add(machine.id)
    return kept


def _is_examined(reservation: Reservation, machine: Machine) -> bool:
    problem = reservation.connections.problem(machine)
    if problem is not None:
        name = machine.label
        reason = str(problem).removeprefix(f"{name}: ")
        output.warn(f"{name} was not examined: {reason}; run this again when it can be reached")
    return problem is None


def _revoke(cluster: Cluster, names: Sequence[str]) -> set[str]:
    """Return the machines that the coordinator refuses from now on."""
    try:
        revoked = queries.remove_machines(cluster, names)
    except (CoordinatorUnreachable, CoordinatorBusy) as error:
        output.warn(f"no key was revoked: {error}; run this again when the coordinator runs")
        return set()
    for name in revoked:
        output.remark(f'machine "{name}" is not part of the cluster any more: its key is refused')
    if revoked:
        output.remark("if others may have read a machine's token: dora cluster rotate-token")
    return set(revoked)


def remove_from_machines(reservation: Reservation, names: Sequence[str] | None = None) -> bool:
    """Remove the leftovers (None: all) on reserved machines; return whether that succeeded."""
    ok = True
    for machine, one in reservation.leftovers():
        if names is None or one.id in names:
            (done,) = on_machines(
                reservation.cluster,
                f"Removing daemon {one.id} from {{name}}",
                _eviction(one),
                machines=[machine],
                connections=reservation.connections,
            )
            ok = ok and done.ok
    former = known_clusters.former_machines(reservation.cluster)
    chosen = [one for one in former if names is None or one.id in names]
    forgotten = _forget_former(reservation, chosen)
    return ok and (forgotten or names is None)  # `down` does not need unreachable former machines


def _eviction(daemon: ExistingDaemon) -> Callable[[RemoteMachine, Report], None]:
    def work(remote: RemoteMachine, report: Report) -> None:
        evict(remote, daemon)

    return work


def _forget_former(reservation: Reservation, former: Sequence[Machine]) -> bool:
    """Forget the former machines that were reached; return whether all of them were."""
    ok = True
    for machine in former:
        if _is_examined(reservation, machine):
            known_clusters.drop_former(reservation.cluster, machine)
        else:
            ok = False
    return ok
