"""Switches the daemon of one machine to another version; its dataflows keep running."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from dora_cluster.bundle.install import probe
from dora_cluster.bundle.layout import Layout
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.queries import Nodes
from dora_cluster.coordinator.tokens import deliver_token
from dora_cluster.decisions.preflight import MachineFacts, NotReady
from dora_cluster.decisions.versions import VersionLinks
from dora_cluster.errors import ConnectionLost
from dora_cluster.machines.daemon_service import (
    DaemonService,
    hand_over,
    last_lines,
    start_daemon,
)
from dora_cluster.machines.remote_machine import RemoteMachine, connect_to, layout_of
from dora_cluster.operations.steps import VersionSwitch, poll, step, write_line
from dora_config.errors import DoraError
from dora_config.protocol.snapshot import NodeSummary

LAST_LINES = 8
"""Lines of the daemon's log in the error of a failed switch."""


@dataclass(frozen=True, slots=True)
class Switched:
    """The new version on a machine; ``files``: new files of its service, if any."""

    dora: str
    version: str
    files: Mapping[str, bytes | None]


Switch = Callable[[RemoteMachine, Layout, DaemonService | None], Switched | None]
"""Switches the links of a machine; None: it runs that version already."""


def held_text(node: NodeSummary) -> str:
    """Return a text with the node that holds updates and the reason."""
    name = node.dataflow_name or node.dataflow
    return f'node "{node.node}" of dataflow "{name}" holds updates: {node.held}'


def node_problems(before: Nodes, after: Nodes) -> Iterator[str]:
    """Yield a sentence for each node that has ended or was restarted."""
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
    """Switch of one machine; it reconnects if its connection is lost."""

    WHAT = "daemon"
    ANSWER = "connect"
    REMEDY = "Run this command again when the machine can be reached: that does the rest"

    def __init__(self, remote: RemoteMachine, switch: Switch) -> None:
        self.remote = remote
        self._switch = switch
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
        """Unit and environment of the service before the switch; empty without a service."""
        if service is not None and self._links.current:
            self._keep_unit(service, stores=self._links == found)
        super().__init__(remote.machine.label, connected_release(remote))

    def _keep_unit(self, service: DaemonService, *, stores: bool) -> None:
        """Store the present unit for a later rollback, or restore the stored unit."""
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
        return True

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
        return self._of_machine(queries.fetch_nodes(self.remote.cluster))

    def _of_machine(self, nodes: Nodes) -> Nodes:
        machine_id = self.remote.machine.id
        return {key: node for key, node in nodes.items() if node.daemon == machine_id}

    def check(self) -> None:
        """Raise NotReady unless every node still runs as the same process."""
        before = self._nodes
        if not before:
            return
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

    def unready(self, nodes: Nodes, daemons: Mapping[str, str]) -> str:
        """Return why the machine is not ready, by its nodes and the versions of all daemons."""
        problems = list(node_problems(self._nodes, self._of_machine(nodes)))
        if daemons.get(self.remote.machine.id) != self.new:
            problems.append("its daemon is not connected")
        return "; ".join(problems)

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
