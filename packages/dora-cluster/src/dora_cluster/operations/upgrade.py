"""`dora cluster upgrade`, `downgrade`: a version for the coordinator, then machines in waves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from dora_cli import output
from dora_cli.polling import wait_until
from dora_cluster.bundle.formats import CONTROL_PLANE, OURS, Formats, differs
from dora_cluster.bundle.install import Installer, probe
from dora_cluster.bundle.layout import Layout
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.queries import Nodes
from dora_cluster.coordinator.service import deliver_token
from dora_cluster.decisions.preflight import MachineFacts, NotReady
from dora_cluster.decisions.versions import (
    NewVersion,
    RollbackPlan,
    VersionLinks,
    Versions,
    check_switch,
    installed_versions,
    plan,
)
from dora_cluster.errors import ConnectionLost, Unreachable
from dora_cluster.machines.daemon_service import (
    DaemonService,
    hand_over,
    last_lines,
    start_daemon,
)
from dora_cluster.machines.remote_machine import (
    Connections,
    Outcome,
    RemoteMachine,
    Report,
    connect_to,
    in_parallel,
    layout_of,
    on_machines,
)
from dora_cluster.operations.coordinator_switch import (
    coordinator_versions,
    roll_back_coordinator,
    store_problem,
    upgrade_coordinator,
)
from dora_cluster.operations.steps import (
    FAULTS,
    POLL_INTERVAL,
    VersionSwitch,
    forgiving,
    poll,
    prefixed,
    step,
    wait_for_nodes,
    write_line,
)
from dora_config.cluster.fleet import Rollout
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError, error_text
from dora_config.protocol.control import ClusterReport
from dora_config.protocol.snapshot import NodeSummary

SETTLE_TIMEOUT = 10.0
"""Seconds after which a coordinator or daemon that has not reconnected counts as absent."""


LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class Switched:
    """The new version on a machine; ``files``: new files of its service, if any."""

    dora: str
    version: str
    files: Mapping[str, bytes | None]


Switch = Callable[[RemoteMachine, Layout, DaemonService | None], Switched | None]
"""Switches the links of a machine; None: it runs that version already."""


@dataclass(frozen=True, slots=True)
class Waves:
    """How a new version reaches the machines."""

    rollout: Rollout
    keep_going: bool = False
    """Continue after failures."""
    force: bool = False
    """Do not wait for nodes that hold updates."""

    def gives_up(self, result: SwitchedMachines) -> bool:
        """Return whether too many have failed, or all machines of `first` are off."""
        first = set(self.rollout.first) & {*result.succeeded, *result.failed, *result.off}
        all_off = bool(first) and first <= set(result.off)
        too_many = len(result.failed) >= self.rollout.max_failed
        return not self.keep_going and (too_many or all_off)


def waves_of(cluster: Cluster, *, keep_going: bool, force: bool) -> Waves:
    """Return `rollout` of the cluster file; without it, machines change one by one."""
    rollout = cluster.rollout or Rollout(then=1)
    if rollout.check is not None:
        output.remark("note: `check` of the roll-out is run by `dora cluster apply` only")
    return Waves(rollout, keep_going, force)


@dataclass(slots=True)
class SwitchedMachines:
    """Machines by the result of a switch."""

    succeeded: list[str] = field(default_factory=list)
    """Also those that ran the version already."""
    before: dict[str, str] = field(default_factory=dict)
    """Former version of each machine that was switched; empty if its daemon was not connected."""
    failed: list[str] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    gave_up: bool = False
    """Too many have failed."""
    is_complete: bool = False


def held_text(node: NodeSummary) -> str:
    """Return that a node holds updates, and why."""
    name = node.dataflow_name or node.dataflow
    return f'node "{node.node}" of dataflow "{name}" holds updates: {node.held}'


def node_problems(before: Nodes, after: Nodes) -> Iterator[str]:
    """Yield a sentence for each node that does not run any more, or was started again."""
    for key, node in before.items():
        now = after.get(key)
        if now is None or now.status in ("Unknown", "Failed"):
            yield f'node "{node.node}" is {"gone" if now is None else now.status}'
        elif now.pid != node.pid and now.restarts <= node.restarts:
            yield f'node "{node.node}" was started again'


def connected_release(remote: RemoteMachine) -> str:
    """Return the version of the machine's connected daemon; empty if none is connected.

    Raises CoordinatorBusy.
    """
    found = queries.connected_daemons(queries.report_if_running(remote.cluster))
    daemon = found.get(remote.machine.id)
    return daemon.release if daemon is not None else ""


def running_tree(facts: MachineFacts) -> str:
    """Return the name of the version's folder that the daemon runs from; may be empty."""
    return PurePosixPath(facts.daemon.tree if facts.daemon is not None else "").name


def unit_copy(remote: RemoteMachine, layout: Layout, tree: str) -> str:
    """Return the path of the unit that is stored with a version."""
    prefix = probe(remote.connection, layout)["prefix"]
    return f"{prefix}/{tree}/{remote.service}.service"


class DaemonSwitch(VersionSwitch):
    """The switch of one machine, over a connection that may have to be opened again."""

    WHAT = "daemon"
    ANSWER = "connect"
    REMEDY = "Run this command again when the machine can be reached: that does the rest"

    def __init__(self, remote: RemoteMachine, switch: Switch, waves: Waves) -> None:
        self.remote = remote
        self._switch = switch
        self._waves = waves
        self._facts = remote.facts()
        service = self._service(remote)
        if service is None and self._facts.daemon is None:
            raise NotReady(
                "no daemon is installed or runs there; use `dora cluster install` or "
                "`dora cluster up`"
            )
        self.layout = layout_of(remote.machine, user=service is None or service.user)
        self._nodes = self._present_nodes()
        found = self._present_links(remote)
        self._links = found.of_running(running_tree(self._facts))
        self._files = service.current_files() if service is not None else {}
        """Unit and environment of the service, if there is one, to restore."""
        if service is not None and self._links.current:
            self._keep_unit(service, stores=self._links == found)
        super().__init__(remote.machine.label, connected_release(remote))

    def _keep_unit(self, service: DaemonService, *, stores: bool) -> None:
        """Store the present unit for a later rollback, or restore that which is stored."""
        connection, sudo = self.remote.connection, self.layout.sudo
        copy = unit_copy(self.remote, self.layout, self._links.current)
        if stores:
            connection.write(copy, self._files[service.unit] or b"", sudo=sudo)
        elif (unit := connection.read(copy, sudo=sudo)) is not None:
            self._files[service.unit] = unit

    def _service(self, remote: RemoteMachine) -> DaemonService | None:
        return DaemonService.find(remote, self._facts)

    # ------------------------------------------------------------------------ switching

    def prepare(self) -> bool:
        switched = self._switch(self.remote, self.layout, self._service(self.remote))
        if switched is None:
            write_line("  It runs that version already")
            return False
        self._switched, self.new = switched, switched.version
        if not self._waves.force:
            self._wait_for_release()
        return True

    def _wait_for_release(self) -> None:
        """Wait while a node of the machine holds updates; raises NotReady after the deadline."""
        limit = self._waves.rollout.deadline
        noted = ""

        def released() -> bool:
            nonlocal noted
            held = [one for one in self._present_nodes().values() if one.held is not None]
            text = "; ".join(held_text(one) for one in held)
            if text not in ("", noted):
                write_line(f"  Waiting up to {limit:g} s: {text}")
            noted = text
            return not held

        if not wait_until(forgiving(released), limit, every=POLL_INTERVAL):
            raise NotReady(f"{noted}; not changed within {limit:g} s (--force changes it at once)")

    def replace(self) -> None:
        service = self._service(self.remote)
        if service is not None and self._switched.files:
            service.replace_files(self._switched.files)
        deliver_token(self.remote)
        with step(f"Restart {'daemon' if service is None else 'service'}"):
            self._restart(self.remote)

    def _restart(self, remote: RemoteMachine) -> None:
        """Start a new daemon process; the dataflows of the old one keep running."""
        service = self._service(remote)
        if service is not None:
            service.restart()
        else:
            hand_over(remote)
            start_daemon(remote, self._switched.dora)

    def release(self) -> str:
        return connected_release(self.remote)

    def wait(self) -> None:
        with step("Waiting for reconnect", timed=True):
            super().wait()

    def last_lines(self) -> Sequence[str]:
        return last_lines(self.remote, self._facts, LAST_LINES)

    def _present_nodes(self) -> Nodes:
        machine_id = self.remote.machine.id
        found = queries.fetch_nodes(self.remote.cluster)
        return {key: node for key, node in found.items() if node.daemon == machine_id}

    def check(self) -> None:
        """Raise NotReady unless every node still runs as the same process."""
        if self._nodes:
            self._check_nodes(self._nodes)
        self._stay_healthy(self._nodes)

    def _check_nodes(self, before: Nodes) -> None:
        problems = ["the coordinator gave no report"]

        def unchanged() -> bool:
            problems[:] = node_problems(before, self._present_nodes())
            return not problems

        running = f"{len({dataflow for dataflow, _ in before})} running, {len(before)} nodes"
        try:
            with step("Its dataflows", detail=running):
                poll(unchanged, "")
        except DoraError:
            raise NotReady(f"its dataflows did not keep running: {'; '.join(problems)}") from None

    def _stay_healthy(self, before: Nodes) -> None:
        """Wait until the machine was healthy for as long as the roll-out wants."""
        rollout = self._waves.rollout
        if rollout.healthy == 0:
            return
        since, present, problems = time.monotonic(), dict[tuple[str, str], int | None](), [""]

        def stable() -> bool:
            nonlocal since, present
            found = self._present_nodes()
            problems[:] = node_problems(before, found)
            if self.release() != self.new:
                problems.append("its daemon is not connected")
            pids = {key: node.pid for key, node in found.items()}
            if problems or pids != present:
                since, present = time.monotonic(), pids
            return time.monotonic() - since >= rollout.healthy

        with step(f"Healthy for {rollout.healthy:g} s"):
            if not wait_until(forgiving(stable), rollout.deadline, every=POLL_INTERVAL):
                reason = "; ".join(problems) or "its nodes were restarted"
                raise NotReady(f"not healthy within {rollout.deadline:g} s: {reason}")

    # ------------------------------------------------------------------------ restoring

    def undo(self) -> None:
        self._over_any_connection(self._restore_links)

    def restore(self) -> None:
        self._over_any_connection(self._restore)

    def _restore(self, there: RemoteMachine) -> None:
        service = self._service(there)
        if service is not None:
            service.replace_files(self._files)
        self._restore_links(there)
        self._restart(there)

    def _present_links(self, remote: RemoteMachine) -> VersionLinks:
        return VersionLinks.from_probe(probe(remote.connection, self.layout))

    def _restore_links(self, there: RemoteMachine) -> None:
        if self._present_links(there) == self._links:
            return
        there.call(
            "versions.restore",
            prefix=self.layout.prefix,
            current=self._links.current,
            previous=self._links.previous,
            sudo=self.layout.sudo,
        )

    def _over_any_connection(self, work: Callable[[RemoteMachine], None]) -> None:
        """Do ``work``; if the connection is broken, do it again over a new one."""
        remote = self.remote
        try:
            work(remote)
        except ConnectionLost:
            with connect_to(remote.machine) as connection:
                work(RemoteMachine(remote.cluster, remote.machine, connection))


# ---------------------------------------------------------------------------- all machines


def switch_in_waves(
    cluster: Cluster,
    machines: Sequence[Machine],
    label: Callable[[Machine], str],
    switch: Switch,
    waves: Waves,
    *,
    collector: Installer | None = None,
) -> SwitchedMachines:
    """Switch the machines batch by batch, until too many have failed.

    Machines that do not answer do not count, unless none of the first batch answers. ``collector``
    then removes unused versions from each machine.
    """
    by_id = {one.id: one for one in machines}
    result = SwitchedMachines()
    batches = waves.rollout.batches(list(by_id))
    connections = Connections()

    def work(machine: Machine) -> None:
        with prefixed(f"{machine.id} | " if len(batch) > 1 else ""):
            write_line(f"{label(machine)}...")
            try:
                with connections.open(machine) as connection:
                    remote = RemoteMachine(cluster, machine, connection)
                    one = DaemonSwitch(remote, switch, waves)
                    if one.run():
                        result.before[machine.id] = one.old
                        if collector is not None:
                            _collect(remote, collector, one.layout)
                result.succeeded.append(machine.id)
            except FAULTS as error:
                text = error_text(error).removeprefix(f"{machine.label}: ")
                write_line(f"  FAILED: {text}")
                (result.off if isinstance(error, Unreachable) else result.failed).append(machine.id)

    for number, batch in enumerate(batches):
        if len(batch) == 1:  # in this thread, which Ctrl-C interrupts
            work(by_id[batch[0]])
        else:
            in_parallel(connections, [by_id[name] for name in batch], work)
        left = [name for later in batches[number + 1 :] for name in later]
        if waves.gives_up(result):
            result.gave_up = True
            if left:
                output.write(
                    f"Stopped there; not touched: {', '.join(left)} (--keep-going continues)"
                )
            break
    output.write(f"{len(result.succeeded)}/{len(machines)} succeeded.")
    result.is_complete = len(result.succeeded) == len(machines)
    return result


def _collect(remote: RemoteMachine, collector: Installer, layout: Layout) -> None:
    try:
        collector.collect(remote.connection, layout)
    except FAULTS as problem:
        reason = error_text(problem).removeprefix(f"{remote.machine.label}: ")
        output.warn(f"unused versions were not removed there: {reason}")


# ---------------------------------------------------------------------------- before a switch


def look_at_versions(
    cluster: Cluster,
) -> tuple[list[Outcome[Versions | None]], dict[str, Versions]]:
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
        return f"Rolling back {machine.label} to {targets[machine.id]}"

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
            lambda machine: f"Upgrading {machine.label}",
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
