"""Replaces the program of a running node: the new process starts before the old one stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.graph_checks import require_same_ports
from dora_daemon.runner.control.node_lookup import find_node, require_running, require_success
from dora_daemon.runner.dispatcher import Dispatcher
from dora_daemon.runner.errors import RequestRefused
from dora_daemon.runner.logs.logs import NodeLog
from dora_daemon.runner.machine.events import (
    ProgramChanged,
    ReplacementAbandoned,
    ReplacementConnected,
    ReplacementLost,
    ReplacementPrepared,
)
from dora_daemon.runner.machine.snapshot import NodeState
from dora_daemon.runner.nodes.services import NodeServices
from dora_daemon.runner.process.prepare import PreparedNode, Preparer
from dora_daemon.runner.process.supervisor import Processes

if TYPE_CHECKING:
    from dora_config.protocol.runner import ReplaceNode

CONNECT_SECONDS = 60.0

_WITHOUT_PROCESS = (NodeState.ENDED, NodeState.BACKING_OFF)


class NodeReplacer:
    """Holds the new process until the old one has ended."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        services: NodeServices,
        preparer: Preparer,
        processes: Processes,
    ) -> None:
        self._dispatcher = dispatcher
        self._services = services
        self._preparer = preparer
        self._processes = processes
        self._prepared: dict[str, tuple[PreparedNode, NodeLog]] = {}
        """By node: the program to be staged."""
        self._staged: dict[int, tuple[PreparedNode, NodeLog]] = {}
        self._errors: dict[str, OSError] = {}

    async def replace(self, request: ReplaceNode) -> None:
        """Replace a node. The old one runs on if this raises.

        Raises RequestRefused, InvalidChange and PreparationError.
        """
        spec = self._check(request.node)
        prepared = await anyio.to_thread.run_sync(self._preparer.prepare, spec, request.place)
        self._check(spec)
        log = self._services.logs.new_log(prepared)
        if find_node(self._dispatcher.state, spec.id).state in _WITHOUT_PROCESS:
            self._services.nodes.set(prepared, log)
            self._services.nodes.locate(spec.id, request.place, request.code)
            await self._start(spec)
        else:
            await self._take_over(spec, prepared, log, request.grace)
            self._services.nodes.locate(spec.id, request.place, request.code)

    async def _take_over(
        self, spec: ResolvedNode, prepared: PreparedNode, log: NodeLog, grace: float
    ) -> None:
        """Start the new process, then stop the old one."""
        self._prepared[spec.id] = (prepared, log)
        self._dispatcher.emit(ReplacementPrepared(spec.id))
        if (error := self._errors.pop(spec.id, None)) is not None:
            raise RequestRefused(f'node "{spec.id}" cannot be spawned: {error}') from error
        number = self._processes.staged[spec.id].incarnation
        try:
            await self._until_connected(spec.id, number, log)
            state = find_node(self._dispatcher.state, spec.id).state
            if state not in (NodeState.RUNNING, NodeState.BACKING_OFF):
                raise RequestRefused(f'node "{spec.id}" was stopped meanwhile')
            # the client may disconnect: once the old process is stopped, the new one takes over
            with anyio.CancelScope(shield=True):
                self._dispatcher.emit(ReplacementConnected(spec, number, grace))
                await self._dispatcher.until(lambda: not self._waits(spec.id, number))
        finally:
            if self._staged.pop(number, None) is not None:
                self._services.handshake.unstage(number)
                self._processes.drop_staged(spec.id)
                self._dispatcher.emit(ReplacementAbandoned(spec.id, number))
        if find_node(self._dispatcher.state, spec.id).incarnation != number:
            raise RequestRefused(
                f'node "{spec.id}" was stopped, or its new process ended, before it was replaced'
            )

    async def _start(self, spec: ResolvedNode) -> None:
        """Start the new program of a node that has ended or waits for a restart."""
        before = find_node(self._dispatcher.state, spec.id).incarnation
        self._dispatcher.emit(ProgramChanged(spec))

        def settled() -> bool:
            node = find_node(self._dispatcher.state, spec.id)
            return node.incarnation != before and (node.connected or node.ended)

        with anyio.move_on_after(CONNECT_SECONDS):
            await self._dispatcher.until(settled)
        require_success(find_node(self._dispatcher.state, spec.id))

    def _check(self, spec: ResolvedNode) -> ResolvedNode:
        """Return the new node, if it can replace the one that runs."""
        require_running(self._dispatcher.state)
        current = find_node(self._dispatcher.state, spec.id)
        old = self._services.nodes.specs[spec.id]
        if old.is_dynamic or spec.is_dynamic:
            raise RequestRefused(f'node "{spec.id}" is dynamic and cannot be replaced')
        if spec.id in self._processes.staged:
            raise RequestRefused(f'node "{spec.id}" is already being replaced')
        if current.state not in (NodeState.RUNNING, *_WITHOUT_PROCESS):
            raise RequestRefused(f'node "{spec.id}" does not run (it is {current.state.value})')
        entries = self._services.registry.out_of(spec.id)
        require_same_ports(old, spec, (entry.edge.output for entry in entries))
        return spec.model_copy(update={"inputs": old.inputs})

    def _waits(self, node: str, number: int) -> bool:
        """Return whether the old process has not ended yet."""
        current = find_node(self._dispatcher.state, node)
        return number in self._staged and current.state is NodeState.STOPPING

    async def _until_connected(self, node: str, number: int, log: NodeLog) -> None:
        def settled() -> bool:
            connected = self._services.handshake.is_staged(number)
            return connected or node not in self._processes.staged

        with anyio.move_on_after(CONNECT_SECONDS):
            await self._dispatcher.until(settled)
            if self._services.handshake.is_staged(number):
                return
            hint = f"; `dora logs --node {node}` shows what it printed"
            cause = f": {log.tail[-1]}" if log.tail else hint
            raise RequestRefused(
                f'the new process of node "{node}" exited before connecting{cause}'
            )
        raise RequestRefused(
            f'the new process of node "{node}" did not connect within {CONNECT_SECONDS:g} s'
        )

    def stage(self, node: str, number: int) -> None:
        """Start the new process beside the old one."""
        prepared, log = self._prepared.pop(node)
        try:
            self._processes.stage(node, number, prepared, log)
        except OSError as error:
            self._errors[node] = error
            self._dispatcher.emit(ReplacementAbandoned(node, number))
            return
        self._services.handshake.stage(number)
        self._staged[number] = (prepared, log)

    def promote(self, node: str, number: int) -> None:
        """Make the new process the node's: the old one has ended."""
        prepared, log = self._staged.pop(number)
        if self._processes.promote(node) is None:
            # it ended while it was staged
            self._services.handshake.unstage(number)
            self._dispatcher.emit(ReplacementLost(node, number))
            return
        self._services.nodes.set(prepared, log)
        self._services.handshake.promote(number)
