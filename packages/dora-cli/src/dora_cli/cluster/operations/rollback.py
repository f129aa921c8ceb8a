"""`dora cluster rollback`: the machines that an upgrade reached go back, then the coordinator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dora_cli import output
from dora_cli.bundle.install import Installer, probe
from dora_cli.bundle.layout import Layout
from dora_cli.bundle.machine import ask
from dora_cli.cluster.coordinator.upgrade import coordinator_versions, roll_back_coordinator
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.decisions.rollback_plan import Plan, Versions, plan
from dora_cli.cluster.machines.daemon_service import Systemd
from dora_cli.cluster.machines.parallel import Done, OnMachine, Say, layout_of, on_machines
from dora_cli.cluster.operations.upgrade import (
    Switched,
    all_nodes,
    kept_unit,
    one_by_one,
    require_coordinator,
    trees,
    trees_before,
    wait_for_everybody,
)
from dora_cli.cluster.operations.version_report import with_state_left
from dora_config.cluster.models import Cluster, Machine


def rollback(
    cluster: Cluster,
    installer: Installer,
    machines: Sequence[Machine],
    *,
    to: str | None,
    keep_going: bool,
) -> bool:
    """Take the newest upgrade back, or have version ``to`` on the machines, and then (when these
    are all of them) on the coordinator; whether all of it went well.
    """
    require_coordinator(cluster)
    done = on_machines(cluster, "Looking at {name}", _look, said=_found)
    versions = {one.machine.id: one.result for one in done if one.result is not None}
    chosen = [one.id for one in machines]
    planned = plan(versions, coordinator_versions(cluster), to)
    if to is not None:
        _require_there(versions, planned, chosen, to)
    everything = len(machines) == len(cluster.machines)
    targets = {name: version for name, version in planned.targets.items() if name in chosen}
    absent = [one for one in done if one.problem is not None and one.machine.id in chosen]
    if not targets and not (everything and planned.coordinator):
        return _nothing_to_do(versions, absent, to)
    _announce(planned, targets, chosen)

    def work() -> bool:
        ok = _return(cluster, installer, targets, keep_going=keep_going) and not absent
        return ok and _return_coordinator(cluster, planned, everything=everything)

    remedy = "`dora cluster rollback` again does the rest; `dora cluster upgrade` goes forward."
    return with_state_left(cluster, work, remedy)


def _look(on: OnMachine, say: Say) -> Versions | None:
    """The versions there; None: the cluster file names a program that we did not put there."""
    if on.machine.dora is not None:
        return None
    facts = on.facts()
    systemd = Systemd.found(on, facts)
    layout = layout_of(on.machine, user=systemd is None or systemd.user)
    running = PurePosixPath(facts.daemon.tree if facts.daemon is not None else "").name
    return _versions(probe(on.link, layout), running)


def _versions(found: Mapping[str, Any], running: str) -> Versions:
    there = {str(one["name"]): str(one["version"]) for one in found["trees"]}
    links = trees(found)
    if links["previous"] != running:  # an upgrade that was cut off counts as done
        links = trees_before(links, running)
    current, previous = links["current"], links["previous"]
    return Versions(
        there.get(current, "none"),
        there.get(previous) if previous != current else None,
        returned=previous == current != "",
        there=tuple(there.values()),
    )


def _found(versions: Versions | None) -> str:
    return "its own dora, which is left alone" if versions is None else str(versions)


def _require_there(
    versions: Mapping[str, Versions], planned: Plan, chosen: Sequence[str], to: str
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


def _nothing_to_do(
    versions: Mapping[str, Versions], absent: Sequence[Done[Any]], to: str | None
) -> bool:
    """Print why nothing is returned; whether that is as it should be."""
    if absent:
        output.remark("Nothing to return on the machines that answer.")
        return False
    if to is not None:
        output.remark(f"Every machine runs dora {to} already.")
        return True
    if any(one.returned for one in versions.values()):
        output.remark("The last upgrade was taken back already; --to VERSION goes elsewhere.")
        return True
    raise NotReady("no machine has an earlier version to return to; nothing was changed")


def _announce(planned: Plan, targets: Mapping[str, str], chosen: Sequence[str]) -> None:
    names = [*targets, *(["the coordinator"] if planned.coordinator else [])]
    output.write(f"Returning to dora {planned.versions}: {', '.join(names)}")
    stay = [f"{name} ({version})" for name, version in planned.stay.items() if name in chosen]
    if stay:
        output.write(f"Left as they are: {', '.join(stay)}")


def _return(
    cluster: Cluster, installer: Installer, targets: Mapping[str, str], *, keep_going: bool
) -> bool:
    def switch(
        on: OnMachine, layout: Layout, systemd: Systemd | None, _running: str
    ) -> Switched | None:
        return _switch(on, layout, systemd, targets[on.machine.id])

    machines = [one for one in cluster.machines if one.id in targets]
    if not machines:
        return True

    def label(machine: Machine) -> str:
        return f"Rolling back {ssh_name(machine)} to {targets[machine.id]}"

    return one_by_one(
        cluster, installer, machines, label, switch, keep_going=keep_going, collect=False
    )


def _switch(on: OnMachine, layout: Layout, systemd: Systemd | None, version: str) -> Switched:
    facts = probe(on.link, layout)
    link = layout.link_for(str(facts["home"]))
    named = [one["name"] for one in facts["trees"] if one["version"] == version]
    if not named:
        raise NotReady(f"there is no version {version} in {facts['prefix']} to return to")
    linked = trees(facts)
    name = next((one for one in (linked["previous"], linked["current"]) if one in named), named[-1])
    files: dict[str, bytes | None] = {}
    if systemd is not None:
        kept = kept_unit(on, layout, name)
        if (unit := on.link.read(kept, sudo=layout.sudo)) is not None:
            files[systemd.unit] = unit
    ask(on.link, "rollback", prefix=layout.prefix, link=link, name=name, sudo=layout.sudo)
    return Switched(link, version, files)


def _return_coordinator(cluster: Cluster, planned: Plan, *, everything: bool) -> bool:
    if not everything:
        output.remark("The coordinator stays as it is: it is returned when all machines are")
        return True
    if planned.coordinator is None:
        return True
    before = all_nodes(cluster)
    if roll_back_coordinator(cluster):
        wait_for_everybody(before, cluster)
    return True
