"""`dora cluster upgrade`: this version on the coordinator, then on the machines in waves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from dora_cli import output
from dora_cli.bundle.formats import CONTROL_PLANE, OURS, differs
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import Layout
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.decisions.daemon_argv import ssh_name
from dora_cli.cluster.decisions.preflight import NotReady
from dora_cli.cluster.decisions.version_check import NewVersion
from dora_cli.cluster.machines.daemon_service import DaemonService
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.operations.coordinator_switch import upgrade_coordinator
from dora_cli.cluster.operations.daemon_switch import (
    Switch,
    Switched,
    Waves,
    check,
    connected_release,
    look_at_versions,
    switch_in_waves,
)
from dora_cli.cluster.operations.rollback import return_machines
from dora_cli.cluster.operations.steps import step, wait_for_nodes
from dora_cli.cluster.operations.version_report import with_version_report
from dora_config.cluster.fleet import Rollout
from dora_config.cluster.models import Cluster, Machine


def upgrade_cluster(
    cluster: Cluster, installer: Installer, machines: Sequence[Machine], waves: Waves
) -> bool:
    """Upgrade the coordinator, then the machines in waves; return whether all succeeded.

    Raises DoraError if nothing can be upgraded.
    """
    version = installer.version
    queries.require_coordinator(cluster)
    unchecked = _check(cluster, machines, version)

    def work() -> bool:
        _upgrade_coordinator(cluster, installer, keep_going=waves.keep_going)
        done = switch_in_waves(
            cluster,
            machines,
            lambda machine: f"Upgrading {ssh_name(machine)}",
            _switch_to(installer, version, unchecked),
            waves,
            collector=installer,
        )
        if done.gave_up and waves.rollout.on_failure == "rollback":
            _return(cluster, done.before, waves)
        return done.is_complete

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
    at_once = Rollout(deadline=waves.rollout.deadline)
    return_machines(cluster, targets, replace(waves, rollout=at_once, keep_going=True))


def _check(cluster: Cluster, machines: Sequence[Machine], version: str) -> dict[str, str]:
    """Raise NotReady if the new coordinator and daemons cannot work with what runs.

    Return why machines could not be checked.
    """
    done, versions = look_at_versions(cluster)
    chosen = [one.id for one in machines if one.id in versions]
    checked = check(cluster, versions, {name: NewVersion(version, OURS) for name in chosen}, OURS)
    problems = list(checked.problems)
    for name, there in versions.items():
        found = differs(OURS, there.formats.get(there.now, {}), CONTROL_PLANE)
        if found is not None:
            problems.append(
                f"{name}: its daemon, dora {there.now}, could not connect to the coordinator of "
                f"dora {version} ({found}); upgrade to a version in between first"
            )
    if problems:
        raise NotReady("\n".join((*problems, "Nothing was changed")))
    for remark in checked.remarks:
        output.warn(remark)
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

    def switch(
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
        link = layout.link_for(str(facts["home"]))
        files = service.wanted_files(link) if service is not None else {}
        current = facts["current"]
        linked = current is not None and tree.endswith(f"/{current['name']}")
        current_files = service.current_files() if service is not None and linked else files
        if linked and connected_release(remote) == version and current_files == files:
            return None
        done = installer.switch(remote.connection, layout, tree, facts)
        return Switched(done.dora, version, files)

    return switch
