"""`dora cluster upgrade`, `downgrade`: a version for the coordinator, then for the machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from dora_cli import output
from dora_cluster.bundle.formats import CONTROL_PLANE, OURS, Formats, differs
from dora_cluster.bundle.install import Installer, probe, switch
from dora_cluster.bundle.layout import Layout
from dora_cluster.coordinator import queries
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.decisions.versions import (
    NewVersion,
    RollbackPlan,
    VersionLinks,
    Versions,
    check_switch,
    installed_versions,
    plan,
)
from dora_cluster.machines.daemon_service import DaemonService
from dora_cluster.machines.remote_machine import (
    MachineOutcome,
    RemoteMachine,
    Report,
    layout_of,
    on_machines,
)
from dora_cluster.operations.coordinator_switch import (
    coordinator_versions,
    roll_back_coordinator,
    store_problem,
    upgrade_coordinator,
)
from dora_cluster.operations.daemon_switch import (
    Switch,
    Switched,
    connected_release,
    running_tree,
    unit_copy,
)
from dora_cluster.operations.steps import POLL_INTERVAL, step, wait_for_nodes
from dora_cluster.operations.version_rollout import VersionRollOut, Waves, require_startable
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError
from dora_config.protocol.control import ClusterReport

SETTLE_TIMEOUT = 10.0
"""Seconds after which a coordinator or daemon that has not reconnected counts as absent."""


# ---------------------------------------------------------------------------- before a switch


def look_at_versions(
    cluster: Cluster,
) -> tuple[list[MachineOutcome[Versions | None]], dict[str, Versions]]:
    """Return the versions on each machine; without those whose program the cluster file names."""
    done = on_machines(cluster, "Looking at {name}", _look, describe=_describe)
    return done, {one.machine.id: one.result for one in done if one.result is not None}


def _look(remote: RemoteMachine, report: Report) -> Versions | None:
    if remote.machine.dora is not None:
        return None
    facts = remote.facts()
    service = DaemonService.find(remote, facts)
    layout = layout_of(remote.machine, user=service is None or service.user)
    return installed_versions(probe(remote.connection, layout), running_tree(facts))


def _describe(versions: Versions | None) -> str:
    return "`dora` of the cluster file, not changed" if versions is None else str(versions)


def require_switch(
    cluster: Cluster,
    versions: Mapping[str, Versions],
    targets: Mapping[str, NewVersion],
    coordinator: Formats | None = None,
    more: Sequence[str] = (),
) -> None:
    """Raise NotReady if a version cannot work with what the present one has written or runs.

    Prints remarks. ``coordinator`` None: the one that runs; ``more``: further problems.
    """
    report = queries.report_if_running(cluster)
    if coordinator is None:
        protocol = None if report is None else report.coordinator.protocol
        coordinator = {} if protocol is None else {CONTROL_PLANE: (protocol.major, protocol.minor)}
    daemons = report.machines if report is not None else ()
    links = {(link.dataflow, link.machine) for daemon in daemons for link in daemon.links}
    running: dict[str, list[str]] = {}
    linked: dict[str, list[str]] = {}
    names = {
        (node.daemon, node.dataflow_name or node.dataflow, (node.dataflow, node.daemon) in links)
        for node in queries.fetch_nodes(cluster).values()
    }
    for machine, name, is_linked in sorted(names):
        running.setdefault(machine, []).append(name)
        if is_linked:
            linked.setdefault(machine, []).append(name)
    checked = check_switch(versions, targets, running, linked, coordinator)
    problems = [*checked.problems, *more]
    if problems:
        raise NotReady("\n".join((*problems, "Nothing was changed")))
    for remark in checked.remarks:
        output.warn(remark)


def with_version_report(cluster: Cluster, work: Callable[[], bool], remedy: str) -> bool:
    """Do ``work``; if it fails or is interrupted, print what runs where, and ``remedy``."""
    before = set(queries.connected_daemons(_fetch_report(cluster)))
    try:
        done = work()
    except (DoraError, OSError, KeyboardInterrupt):
        _write(cluster, before, remedy)
        raise
    if not done:
        _write(cluster, before, remedy)
    return done


def _write(cluster: Cluster, before: set[str], remedy: str) -> None:
    report = None
    with suppress(KeyboardInterrupt):  # a second Ctrl-C ends the wait
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while time.monotonic() < deadline:
            report = _fetch_report(cluster)
            if report is not None and before <= queries.connected_daemons(report).keys():
                break
            time.sleep(POLL_INTERVAL)
    output.write("What runs now:")
    rows = _rows(cluster, report)
    width = max(len(name) for name, _ in rows)
    for name, version in rows:
        output.write(f"  {name.ljust(width)}  {version}")
    output.write(remedy)


def _rows(cluster: Cluster, report: ClusterReport | None) -> list[tuple[str, str]]:
    """Return the coordinator and each machine with its version."""
    if report is None:
        unknown = "unknown: the coordinator does not answer"
        return [("coordinator", "does not answer"), *((m.id, unknown) for m in cluster.machines)]
    daemons = {one.machine_id: one for one in report.machines}
    rows = [("coordinator", report.coordinator.release)]
    for machine in cluster.machines:
        found = daemons.get(machine.id)
        if found is None:
            rows.append((machine.id, "not connected"))
        else:
            suffix = "" if found.connected else " (not connected)"
            rows.append((machine.id, f"{found.release}{suffix}"))
    return rows


def _fetch_report(cluster: Cluster) -> ClusterReport | None:
    try:
        return queries.fetch_report(cluster)
    except DoraError:
        return None


def roll_back(
    cluster: Cluster, machines: Sequence[Machine], waves: Waves, *, to: str | None
) -> bool:
    """Undo the newest upgrade, or switch to version ``to``; return whether all succeeded.

    The coordinator follows when these are all machines of the cluster.
    """
    require_startable(cluster, waves)
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
    wanted = {
        name: NewVersion(to, versions[name].formats.get(to, {})) for name, to in targets.items()
    }
    store = None
    if everything and planned.coordinator is not None:
        store = store_problem(cluster, planned.coordinator)
    require_switch(cluster, versions, wanted, more=[store] if store else [])
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


def _nothing_to_do(
    versions: Mapping[str, Versions], absent: Sequence[MachineOutcome[Any]], to: str | None
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
        return f"Rolling back {machine.label} to {targets[machine.id]}"

    def change(remote: RemoteMachine, layout: Layout, service: DaemonService | None) -> Switched:
        return _switch(remote, layout, service, targets[remote.machine.id])

    return VersionRollOut(cluster, machines, label, change, waves).run()


def _switch(
    remote: RemoteMachine, layout: Layout, service: DaemonService | None, version: str
) -> Switched:
    """Switch the links to an installed version; its stored unit belongs to it."""
    found = probe(remote.connection, layout)
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
    switch(remote.connection, layout, name, returned=True)
    return Switched(str(found["link"]), version, files)


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


def upgrade_cluster(
    cluster: Cluster, installer: Installer, machines: Sequence[Machine], waves: Waves
) -> bool:
    """Upgrade the coordinator, then the machines in waves; return whether all succeeded.

    Raises DoraError if nothing can be upgraded.
    """
    version = installer.version
    require_startable(cluster, waves)
    unchecked = _check(cluster, machines, version)

    def work() -> bool:
        _upgrade_coordinator(cluster, installer, keep_going=waves.keep_going)
        roll_out = VersionRollOut(
            cluster,
            machines,
            lambda machine: f"Upgrading {machine.label}",
            _switch_to(installer, version, unchecked),
            waves,
            collects=True,
        )
        is_complete = roll_out.run()
        if roll_out.gave_up and waves.rollout.on_failure == "rollback":
            _return(cluster, roll_out.before, waves)
        return is_complete

    remedy = "`dora cluster upgrade` again does the rest; `dora cluster downgrade` undoes it."
    return with_version_report(cluster, work, remedy)


def _return(cluster: Cluster, before: Mapping[str, str], waves: Waves) -> None:
    """Return the machines that this upgrade has reached to their former version."""
    targets = {name: version for name, version in before.items() if version}
    if not targets:
        return
    output.write(
        f"The roll-out has failed; returning: {', '.join(targets)} (the coordinator stays as it is)"
    )
    at_once = replace(waves, rollout=waves.rollout.for_return(), keep_going=True)
    return_machines(cluster, targets, at_once)


def _check(cluster: Cluster, machines: Sequence[Machine], version: str) -> dict[str, str]:
    """Raise NotReady if the new coordinator and daemons cannot work with what runs.

    Return why machines could not be checked.
    """
    done, versions = look_at_versions(cluster)
    chosen = [one.id for one in machines if one.id in versions]
    problems = []
    for name, there in versions.items():
        found = differs(OURS, there.formats.get(there.now, {}), CONTROL_PLANE)
        if found is not None:
            problems.append(
                f"{name}: its daemon, dora {there.now}, could not connect to the coordinator of "
                f"dora {version} ({found}); upgrade to a version in between first"
            )
    wanted = {name: NewVersion(version, OURS) for name in chosen}
    require_switch(cluster, versions, wanted, OURS, problems)
    return {one.machine.id: one.problem for one in done if one.problem is not None}


def _upgrade_coordinator(cluster: Cluster, installer: Installer, *, keep_going: bool) -> None:
    before = queries.fetch_nodes(cluster)
    if not upgrade_coordinator(cluster, installer):
        return
    try:
        wait_for_nodes(cluster, before)
    except NotReady as problem:
        if not keep_going:
            raise NotReady(f"{problem}; no machine was touched") from None
        output.warn(str(problem))


def _switch_to(installer: Installer, version: str, unchecked: Mapping[str, str]) -> Switch:
    """Return the work that puts the installer's version on a machine and switches to it."""

    def change(
        remote: RemoteMachine, layout: Layout, service: DaemonService | None
    ) -> Switched | None:
        if remote.machine.id in unchecked:
            raise NotReady(unchecked[remote.machine.id])
        if remote.machine.dora is not None:
            raise NotReady(
                f"the cluster file names its program, {remote.machine.dora}; upgrade that program "
                "by the way it was installed, or remove `dora` from the file"
            )
        with step(f"Put dora {version} there and test it", timed=True):
            tree, facts = installer.put(remote.connection, layout, lambda text: None)
        link = str(facts["link"])
        files = service.wanted_files(link) if service is not None else {}
        current = facts["current"]
        linked = current is not None and tree.endswith(f"/{current['name']}")
        current_files = service.current_files() if service is not None and linked else files
        if linked and connected_release(remote) == version and current_files == files:
            return None
        switch(remote.connection, layout, PurePosixPath(tree).name)
        return Switched(link, version, files)

    return change
