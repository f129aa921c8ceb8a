"""Switches the daemon of a machine to another version, and the machines in batches.

The links are switched, then the daemon is restarted as a hand-over, which its runners outlive. If
the daemon does not reconnect, or reconnects without its dataflows, the machine is restored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from dora_cli import output
from dora_cli.bundle.formats import CONTROL_PLANE, Formats
from dora_cli.bundle.install import Installer, probe
from dora_cli.bundle.layout import Layout
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.queries import Nodes
from dora_cli.cluster.coordinator.trust import deliver_token
from dora_cli.cluster.decisions.daemon_argv import ssh_name, without_name
from dora_cli.cluster.decisions.preflight import MachineFacts, NotReady
from dora_cli.cluster.decisions.versions import (
    Checked,
    NewVersion,
    VersionLinks,
    Versions,
    check_switch,
    installed_versions,
)
from dora_cli.cluster.machines.daemon_service import (
    DaemonService,
    hand_over,
    last_lines,
    start_daemon,
)
from dora_cli.cluster.machines.parallel import (
    Connections,
    Outcome,
    Report,
    in_parallel,
    on_machines,
)
from dora_cli.cluster.machines.remote_machine import RemoteMachine, connect_to, layout_of
from dora_cli.cluster.operations.steps import (
    FAULTS,
    POLL_INTERVAL,
    VersionSwitch,
    forgiving,
    poll,
    prefixed,
    step,
    write_line,
)
from dora_cli.polling import wait_until
from dora_cli.ssh.errors import ConnectionLost, Unreachable
from dora_config.cluster.fleet import Rollout
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError, error_text
from dora_config.protocol.snapshot import NodeSummary

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
    rollout = cluster.rollout
    if rollout.check is not None:
        output.remark("note: `check` of the roll-out is run by `dora cluster apply` only")
    if rollout == Rollout():
        rollout = rollout.model_copy(update={"then": 1})
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
        super().__init__(ssh_name(remote.machine), connected_release(remote))

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
                text = without_name(error_text(error), ssh_name(machine))
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
        reason = without_name(error_text(problem), ssh_name(remote.machine))
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


def check(
    cluster: Cluster,
    versions: Mapping[str, Versions],
    targets: Mapping[str, NewVersion],
    coordinator: Formats | None = None,
) -> Checked:
    """Check a switch before it begins; ``coordinator`` None: the one that runs."""
    report = queries.report_if_running(cluster)
    if coordinator is None:
        protocol = None if report is None else report.coordinator.protocol
        coordinator = {} if protocol is None else {CONTROL_PLANE: (protocol.major, protocol.minor)}
    daemons = report.machines if report is not None else ()
    links = {(link.dataflow, link.machine) for daemon in daemons for link in daemon.links}
    running: dict[str, dict[str, None]] = {}
    linked: dict[str, dict[str, None]] = {}
    for node in queries.fetch_nodes(cluster).values():
        name = node.dataflow_name or node.dataflow
        running.setdefault(node.daemon, {})[name] = None
        if (node.dataflow, node.daemon) in links:
            linked.setdefault(node.daemon, {})[name] = None
    return check_switch(versions, targets, _sorted(running), _sorted(linked), coordinator)


def _sorted(names: Mapping[str, Mapping[str, None]]) -> dict[str, list[str]]:
    return {machine: sorted(some) for machine, some in names.items()}
