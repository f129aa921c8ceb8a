"""Daemons of a cluster that run and are no longer in its file: listed, and removed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence

from dora_cli import output
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.occupants import Occupant
from dora_cli.cluster.machines.parallel import OnMachine, Say, on_machines
from dora_cli.cluster.ownership import known_clusters
from dora_cli.cluster.ownership.eviction import evict
from dora_cli.cluster.ownership.reservation import Errand, Guard, guarded
from dora_config import DoraError
from dora_config.cluster.models import Cluster, Machine
from dora_config.protocol.control import DaemonSummary


def report(guard: Guard, daemons: Iterable[DaemonSummary]) -> None:
    """List them after a command; ``daemons``: those that the coordinator has."""
    seen = {}
    for machine, one in guard.left():
        seen[one.id or ""] = f"on {ssh_name(machine)}"
    _list(guard.cluster, str(guard.errand.file), seen, daemons)


def report_connected(cluster: Cluster, daemons: Iterable[DaemonSummary]) -> None:
    """List those that the coordinator has."""
    _list(cluster, known_clusters.file_of(cluster), {}, daemons)


def _list(
    cluster: Cluster, file: str, seen: dict[str, str], daemons: Iterable[DaemonSummary]
) -> None:
    known = {machine.id for machine in cluster.machines}
    for one in daemons:
        if one.connected and one.machine_id is not None and one.machine_id not in known:
            seen.setdefault(one.machine_id, f"at {one.address or 'an unknown address'}")
    for name, place in sorted(seen.items()):
        output.warn(
            f'daemon "{name}" runs {place} and is not in {file}; remove it: '
            f"dora cluster remove {shlex.quote(file)} {name}"
        )


def remove(cluster: Cluster, errand: Errand, names: Sequence[str]) -> bool:
    """End these daemons with their dataflows and remove what they keep; whether all are gone."""
    former = [one for one in known_clusters.former(cluster) if one.id in names]
    with guarded(cluster, errand, [*cluster.machines, *former]) as guard:
        there = [(machine, one) for machine, one in guard.left() if one.id in names]
        absent = set(names) - {one.id for _, one in there} - {one.id for one in former}
        if absent:
            raise DoraError(
                f"no daemon {', '.join(sorted(absent))} of this cluster was found on the machines "
                "of this file or of earlier ones; end it on its machine"
            )
        return remove_left(guard, names)


def remove_left(guard: Guard, names: Sequence[str] | None = None) -> bool:
    """Remove those that are left on the machines of a command, all or these; whether it worked."""
    ok = True
    for machine, one in guard.left():
        if names is None or one.id in names:
            label = f"Removing daemon {one.id} from {{name}}"
            (done,) = on_machines(
                guard.cluster, label, _evicting(one), machines=[machine], said=str, links=guard
            )
            ok = ok and done.ok
    former = known_clusters.former(guard.cluster)
    chosen = [one for one in former if names is None or one.id in names]
    looked = _forget(guard.cluster, guard, chosen)
    return ok and (looked or names is None)  # `down` does not wait for machines that are gone


def _evicting(occupant: Occupant) -> Callable[[OnMachine, Say], str]:
    def work(on: OnMachine, say: Say) -> str:
        evict(on, occupant)
        return "OK"

    return work


def _forget(cluster: Cluster, guard: Guard, former: Sequence[Machine]) -> bool:
    """Former machines that were looked at are not looked at again."""
    ok = True
    for machine in former:
        try:
            guard.find(machine)
        except DoraError as error:
            output.warn(f"{ssh_name(machine)} was not looked at: {error}")
            ok = False
        else:
            known_clusters.drop(cluster, machine)
    return ok
