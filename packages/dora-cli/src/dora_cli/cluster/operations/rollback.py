"""`dora cluster downgrade`: the machines that an upgrade reached return, then the coordinator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dora_cli import output
from dora_cli.bundle.install import probe
from dora_cli.bundle.layout import Layout
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.decisions.rollback_plan import RollbackPlan, Versions, plan
from dora_cli.cluster.decisions.version_check import NewVersion
from dora_cli.cluster.decisions.version_links import VersionLinks
from dora_cli.cluster.machines.daemon_service import DaemonService
from dora_cli.cluster.machines.parallel import Outcome
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.operations.coordinator_switch import (
    coordinator_versions,
    roll_back_coordinator,
    store_problem,
)
from dora_cli.cluster.operations.daemon_switch import (
    Switched,
    Waves,
    check,
    look_at_versions,
    switch_in_waves,
    unit_copy,
)
from dora_cli.cluster.operations.steps import wait_for_nodes
from dora_cli.cluster.operations.version_report import with_version_report
from dora_config.cluster.models import Cluster, Machine


def roll_back(
    cluster: Cluster, machines: Sequence[Machine], waves: Waves, *, to: str | None
) -> bool:
    """Undo the newest upgrade, or switch to version ``to``; return whether all succeeded.

    The coordinator follows when these are all machines of the cluster.
    """
    queries.require_coordinator(cluster)
    done, versions = look_at_versions(cluster)
    chosen = [one.id for one in machines]
    planned = plan(versions, coordinator_versions(cluster), to)
    if to is not None:
        _require_installed(versions, planned, chosen, to)
    everything = len(machines) == len(cluster.machines)
    targets = {name: version for name, version in planned.targets.items() if name in chosen}
    absent = [one for one in done if one.problem is not None and one.machine.id in chosen]
    if not targets and not (everything and planned.coordinator):
        return _nothing_to_do(versions, absent, to)
    _require_readable(cluster, versions, targets, planned if everything else None)
    _announce(planned, targets, chosen)

    def work() -> bool:
        ok = return_machines(cluster, targets, waves) and not absent
        return ok and _return_coordinator(cluster, planned, everything=everything)

    remedy = "`dora cluster downgrade` again does the rest; `dora cluster upgrade` upgrades again."
    return with_version_report(cluster, work, remedy)


def _require_installed(
    versions: Mapping[str, Versions], planned: RollbackPlan, chosen: Sequence[str], to: str
) -> None:
    lacking = [
        f"{name} has {', '.join(sorted(versions[name].there)) or 'none'}"
        for name in planned.targets
        if name in chosen and to not in versions[name].there
    ]
    if lacking:
        raise NotReady(
            f"dora {to} is not on every machine ({'; '.join(lacking)}); nothing was changed. "
            f"`dora cluster upgrade` from an installation of dora {to} puts it there"
        )


def _require_readable(
    cluster: Cluster,
    versions: Mapping[str, Versions],
    targets: Mapping[str, str],
    planned: RollbackPlan | None,
) -> None:
    """Raise NotReady if a version cannot work with what the present one has written or runs.

    ``planned`` None: the coordinator stays.
    """
    wanted = {
        name: NewVersion(to, versions[name].formats.get(to, {})) for name, to in targets.items()
    }
    checked = check(cluster, versions, wanted)
    store = None
    if planned is not None and planned.coordinator is not None:
        store = store_problem(cluster, planned.coordinator)
    problems = [*checked.problems, *([store] if store else [])]
    if problems:
        raise NotReady("\n".join((*problems, "Nothing was changed")))
    for remark in checked.remarks:
        output.warn(remark)


def _nothing_to_do(
    versions: Mapping[str, Versions], absent: Sequence[Outcome[Any]], to: str | None
) -> bool:
    """Print why no machine is returned; return whether that is a success."""
    if absent:
        output.remark("The machines that answer have no version to return to.")
        return False
    if to is not None:
        output.remark(f"Every machine runs dora {to} already.")
        return True
    if any(one.returned for one in versions.values()):
        output.remark("The last upgrade was undone already; --to VERSION chooses a version.")
        return True
    raise NotReady("no machine has an earlier version to return to; nothing was changed")


def _announce(planned: RollbackPlan, targets: Mapping[str, str], chosen: Sequence[str]) -> None:
    names = [*targets, *(["the coordinator"] if planned.coordinator else [])]
    output.write(f"Returning to dora {planned.versions}: {', '.join(names)}")
    stay = [f"{name} ({version})" for name, version in planned.stay.items() if name in chosen]
    if stay:
        output.write(f"Left as they are: {', '.join(stay)}")


def return_machines(cluster: Cluster, targets: Mapping[str, str], waves: Waves) -> bool:
    """Switch machines to versions that are on them; return whether all succeeded."""
    machines = [one for one in cluster.machines if one.id in targets]
    if not machines:
        return True

    def label(machine: Machine) -> str:
        return f"Rolling back {ssh_name(machine)} to {targets[machine.id]}"

    def switch(remote: RemoteMachine, layout: Layout, service: DaemonService | None) -> Switched:
        return _switch(remote, layout, service, targets[remote.machine.id])

    return switch_in_waves(cluster, machines, label, switch, waves).is_complete


def _switch(
    remote: RemoteMachine, layout: Layout, service: DaemonService | None, version: str
) -> Switched:
    """Switch the links to an installed version; its stored unit belongs to it."""
    found = probe(remote.connection, layout)
    link = layout.link_for(str(found["home"]))
    named = [one["name"] for one in found["trees"] if one["version"] == version]
    if not named:
        raise NotReady(f"version {version} does not exist in {found['prefix']}")
    links = VersionLinks.from_probe(found)
    name = next((one for one in (links.previous, links.current) if one in named), named[-1])
    files: dict[str, bytes | None] = {}
    if service is not None:
        copy = unit_copy(remote, layout, name)
        if (unit := remote.connection.read(copy, sudo=layout.sudo)) is not None:
            files[service.unit] = unit
    remote.call(
        "versions.switch",
        prefix=layout.prefix,
        link=link,
        name=name,
        returned=True,
        sudo=layout.sudo,
    )
    return Switched(link, version, files)


def _return_coordinator(cluster: Cluster, planned: RollbackPlan, *, everything: bool) -> bool:
    if not everything:
        output.remark("The coordinator stays as it is: it returns together with all machines")
        return True
    if planned.coordinator is None:
        return True
    before = queries.fetch_nodes(cluster)
    if roll_back_coordinator(cluster):
        wait_for_nodes(cluster, before)
    return True
