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
from dora_daemon.runner.machine.events import (
    ProgramChanged,
    ReplacementAbandoned,
    ReplacementConnected,
    ReplacementPrepared,
)
from dora_daemon.runner.machine.snapshot import NodeState
from dora_daemon.runner.nodes.local_nodes import LocalNode, Replacement
from dora_daemon.runner.nodes.services import NodeServices
from dora_daemon.runner.process.prepare import Preparer

if TYPE_CHECKING:
    from dora_config.protocol.runner import ReplaceNode

CONNECT_SECONDS = 60.0

_WITHOUT_PROCESS = (NodeState.ENDED, NodeState.BACKING_OFF)


class NodeReplacer:
    """Carries out one request; `Processes` holds the new process until the old one has ended."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        services: NodeServices,
        preparer: Preparer,
    ) -> None:
        self._dispatcher = dispatcher
        self._services = services
        self._preparer = preparer

    async def replace(self, request: ReplaceNode) -> None:
        """Replace a node. The old one runs on if this raises.

        Raises RequestRefused, InvalidChange and PreparationError.
        """
        spec = self._check(request.node)
        prepared = await anyio.to_thread.run_sync(self._preparer.prepare, spec, request.place)
        self._check(spec)
        node = self._services.nodes[spec.id]
        log = self._services.logs.new_log(prepared)
        if find_node(self._dispatcher.state, spec.id).state in _WITHOUT_PROCESS:
            node.change_program(prepared, log)
            self._services.nodes.locate(node, request.place, request.code)
            await self._start(spec)
        else:
            await self._take_over(node, Replacement(prepared, log), request.grace)
            self._services.nodes.locate(node, request.place, request.code)

    async def _take_over(self, node: LocalNode, replacement: Replacement, grace: float) -> None:
        """Start the new process, then stop the old one."""
        spec = replacement.program.spec
        node.replacement = replacement
        self._dispatcher.emit(ReplacementPrepared(spec.id))
        if (error := replacement.error) is not None:
            raise RequestRefused(f'node "{spec.id}" cannot be spawned: {error}') from error
        number = replacement.incarnation
        lost = RequestRefused(
            f'node "{spec.id}" was stopped, or its new process ended, before it was replaced'
        )
        try:
            await self._until_connected(node, replacement)
            state = find_node(self._dispatcher.state, spec.id).state
            running = state in (NodeState.RUNNING, NodeState.BACKING_OFF)
            if node.replacement is not replacement or not running:
                raise lost
            # the client may disconnect: once the old process is stopped, the new one takes over
            with anyio.CancelScope(shield=True):
                self._dispatcher.emit(ReplacementConnected(spec, number, grace))
                await self._dispatcher.until(lambda: not self._waits(spec.id, number))
        finally:
            if node.program is not replacement.program:
                replacement.kill()
                self._dispatcher.emit(ReplacementAbandoned(spec.id, number))
        if find_node(self._dispatcher.state, spec.id).incarnation != number:
            raise lost

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
        node = self._services.nodes[spec.id]
        old = node.spec
        if old.is_dynamic or spec.is_dynamic:
            raise RequestRefused(f'node "{spec.id}" is dynamic and cannot be replaced')
        if node.replacement is not None:
            raise RequestRefused(f'node "{spec.id}" is already being replaced')
        if current.state not in (NodeState.RUNNING, *_WITHOUT_PROCESS):
            raise RequestRefused(f'node "{spec.id}" does not run (it is {current.state.value})')
        entries = self._services.registry.out_of(spec.id)
        require_same_ports(old, spec, (entry.edge.output for entry in entries))
        return spec.model_copy(update={"inputs": old.inputs})

    def _waits(self, node: str, number: int) -> bool:
        """Return whether the old process has not ended yet."""
        current = find_node(self._dispatcher.state, node)
        return current.incarnation != number and current.state is NodeState.STOPPING

    async def _until_connected(self, node: LocalNode, replacement: Replacement) -> None:
        def settled() -> bool:
            return replacement.connection is not None or node.replacement is not replacement

        with anyio.move_on_after(CONNECT_SECONDS):
            await self._dispatcher.until(settled)
            if replacement.connection is not None:
                return
            if self._services.nodes.get(node.id) is not node:
                raise RequestRefused(f'node "{node.id}" was removed meanwhile')
            log, hint = replacement.log, f"; `dora logs --node {node.id}` shows what it printed"
            cause = f": {log.tail[-1]}" if log.tail else hint
            raise RequestRefused(
                f'the new process of node "{node.id}" exited before connecting{cause}'
            )
        raise RequestRefused(
            f'the new process of node "{node.id}" did not connect within {CONNECT_SECONDS:g} s'
        )
