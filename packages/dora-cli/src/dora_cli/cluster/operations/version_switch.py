"""Switches one machine to another version of dora, all or nothing; its dataflows keep running.

The links are switched, then the daemon is restarted as a hand-over, which its runners outlive. If
the daemon does not reconnect, or reconnects without its dataflows, the machine is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from dora_cli import output
from dora_cli.bundle.formats import CONTROL_PLANE, Formats
from dora_cli.bundle.install import probe
from dora_cli.bundle.layout import Layout
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.trust import deliver_token
from dora_cli.cluster.decisions.daemon_argv import ssh_name, without_name
from dora_cli.cluster.decisions.node_changes import Nodes, node_problems
from dora_cli.cluster.decisions.preflight import MachineFacts, NotReady
from dora_cli.cluster.decisions.rollback_plan import Versions
from dora_cli.cluster.decisions.version_check import Checked, NewVersion, check_switch
from dora_cli.cluster.decisions.version_links import VersionLinks, installed_versions
from dora_cli.cluster.machines.background_daemon import hand_over, start_daemon
from dora_cli.cluster.machines.daemon_service import DaemonService, last_lines
from dora_cli.cluster.machines.parallel import Outcome, Report, on_machines
from dora_cli.cluster.machines.remote_machine import RemoteMachine, connect_to, layout_of
from dora_cli.cluster.operations.steps import poll, step
from dora_cli.ssh import ConnectionLost
from dora_config import DoraError
from dora_config.cluster.models import Cluster

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
class Before:
    """The state to which a machine is restored."""

    release: str
    """Of the connected daemon; empty if none is connected."""
    links: VersionLinks
    files: Mapping[str, bytes | None]
    """Unit and environment of the service, if there is one."""

    @property
    def name(self) -> str:
        return self.release or "the version before"


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


class VersionSwitch:
    """The switch of one machine, over a connection that may have to be opened again."""

    def __init__(self, remote: RemoteMachine) -> None:
        self.remote = remote
        self.facts = remote.facts()
        service = DaemonService.find(remote, self.facts)
        if service is None and self.facts.daemon is None:
            raise NotReady(
                "no daemon is installed or runs there; use `dora cluster install` or "
                "`dora cluster up`"
            )
        self.layout = layout_of(remote.machine, user=service is None or service.user)

    def run(self, switch: Switch) -> bool:
        """Switch and restart; return False if the machine runs that version already.

        Raises NotReady with the machine restored.
        """
        remote, service = self.remote, self._service(self.remote)
        nodes = self._nodes()
        before = self._before(service)
        try:
            switched = switch(remote, self.layout, service)
        except BaseException:
            with suppress(DoraError, OSError):  # the machine may be unreachable
                self._over_any_connection(lambda there: self._restore_links(there, before))
            raise
        if switched is None:
            output.write("  It runs that version already")
            return False
        try:
            if service is not None and switched.files:
                service.replace_files(switched.files)
            deliver_token(remote)
            self._restart(switched.dora)
            self._wait_for_reconnect(switched.version)
            self._require_nodes(nodes)
        except (DoraError, OSError) as problem:
            self._restore(switched, before, str(problem))
            raise NotReady(f"{problem}\n  (it runs {before.name} again)") from problem
        except BaseException:  # Ctrl-C
            output.write(
                f"  Interrupted: returning to {before.name}; a second Ctrl-C leaves it as it is"
            )
            self._restore(switched, before, "interrupted")
            raise
        return True

    def _service(self, remote: RemoteMachine) -> DaemonService | None:
        return DaemonService.find(remote, self.facts)

    def _links(self, remote: RemoteMachine) -> VersionLinks:
        return VersionLinks.from_probe(probe(remote.connection, self.layout))

    def _before(self, service: DaemonService | None) -> Before:
        """Return the state to restore; stores the present unit for a later rollback."""
        remote, sudo = self.remote, self.layout.sudo
        found = self._links(remote)
        links = found.of_running(running_tree(self.facts))
        files = service.current_files() if service is not None else {}
        if service is not None and links.current:
            copy = unit_copy(remote, self.layout, links.current)
            if links == found:
                remote.connection.write(copy, files[service.unit] or b"", sudo=sudo)
            elif (unit := remote.connection.read(copy, sudo=sudo)) is not None:
                files[service.unit] = unit
        return Before(connected_release(remote), links, files)

    # ------------------------------------------------------------------------ steps

    def _restart(self, dora: str) -> None:
        what = "daemon" if self._service(self.remote) is None else "service"
        with step(f"Restart {what}"):
            self._restart_over(self.remote, dora)

    def _restart_over(self, remote: RemoteMachine, dora: str) -> None:
        """Start a new daemon process; the dataflows of the old one keep running."""
        service = self._service(remote)
        if service is not None:
            service.restart()
        else:
            hand_over(remote)
            start_daemon(remote, dora)

    def _wait_for_reconnect(self, version: str) -> None:
        try:
            with step("Waiting for reconnect", timed=True):
                poll(
                    lambda: connected_release(self.remote) == version,
                    f"dora {version} did not connect",
                )
        except DoraError as problem:
            printed = last_lines(self.remote, self.facts, LAST_LINES)
            lines = "\n".join(f"    {line}" for line in printed)
            raise NotReady(f"{problem}; its last lines:\n{lines}") from problem

    def _nodes(self) -> Nodes:
        machine_id = self.remote.machine.id
        found = queries.fetch_nodes(self.remote.cluster)
        return {key: node for key, node in found.items() if node.daemon == machine_id}

    def _require_nodes(self, before: Nodes) -> None:
        """Raise NotReady unless every node still runs as the same process."""
        if not before:
            return
        problems = ["the coordinator gave no report"]

        def unchanged() -> bool:
            problems[:] = node_problems(before, self._nodes())
            return not problems

        running = f"{len({dataflow for dataflow, _ in before})} running, {len(before)} nodes"
        try:
            with step("Its dataflows", detail=running):
                poll(unchanged, "")
        except DoraError:
            raise NotReady(f"its dataflows did not keep running: {'; '.join(problems)}") from None

    # ------------------------------------------------------------------------ restoring

    def _restore(self, switched: Switched, before: Before, problem: str) -> None:
        """Restore the machine; raises NotReady with ``problem`` if that fails too."""

        def work(there: RemoteMachine) -> None:
            service = self._service(there)
            if service is not None:
                service.replace_files(before.files)
            self._restore_links(there, before)
            self._restart_over(there, switched.dora)
            if before.release:
                poll(
                    lambda: connected_release(there) == before.release,
                    f"dora {before.release} did not connect either",
                )

        try:
            with step(f"Return to {before.name}"):
                self._over_any_connection(work)
        except (DoraError, OSError) as second:
            reason = without_name(str(second), ssh_name(self.remote.machine))
            raise NotReady(
                f"{problem}\n  and it could not be returned: {reason}\n"
                "  Run this command again when the machine can be reached: that does the rest"
            ) from second

    def _restore_links(self, there: RemoteMachine, before: Before) -> None:
        if self._links(there) == before.links:
            return
        there.call(
            "versions.restore",
            prefix=self.layout.prefix,
            current=before.links.current,
            previous=before.links.previous,
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
    daemons = report.daemons if report is not None else ()
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
