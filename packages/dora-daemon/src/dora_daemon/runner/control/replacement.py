"""Replacement of a node: the new program connects before the old one ends."""

from __future__ import annotations

import anyio
import anyio.to_thread

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol import runner as protocol
from dora_config.protocol.graph_checks import require_same_ports
from dora_daemon.runner.control.node_lookup import NodeLookup, require_running, require_success
from dora_daemon.runner.errors import RequestRefused
from dora_daemon.runner.machine import events
from dora_daemon.runner.machine.node import NodeState
from dora_daemon.runner.nodes.local_nodes import LocalNode, Replacement
from dora_daemon.runner.service import Runner

REPLACE_SECONDS = 60.0
"""Seconds for the new program of a node to connect."""

_WITHOUT_PROCESS = (NodeState.ENDED, NodeState.BACKING_OFF)


class NodeReplacement:
    """Replaces nodes, one request each."""

    def __init__(self, runner: Runner, lookup: NodeLookup) -> None:
        self._runner = runner
        self._lookup = lookup
        self._dispatcher = runner.dispatcher
        self._services = runner.services

    async def replace(self, request: protocol.ReplaceNode) -> None:
        """Replace a node. The old program continues if this raises, unless it need not connect.

        Raises RequestRefused, InvalidChange and PreparationError.
        """
        spec = self._check_replacement(request.node)
        prepare = self._runner.preparer.prepare
        prepared = await anyio.to_thread.run_sync(prepare, spec, request.place)
        self._check_replacement(spec)
        node = self._services.nodes[spec.id]
        log = self._services.logs.new_log(prepared)
        if self._lookup.lifecycle(spec.id).steady:
            # the old program has no connection to take over, so it ends first
            self._dispatcher.emit(events.NodeStopRequested(spec.id, request.grace, leaves=True))
            await self._lookup.until(spec.id, lambda n: n.ended)
        if self._lookup.lifecycle(spec.id).state in _WITHOUT_PROCESS:
            node.change_program(prepared, log)
            self._services.nodes.locate(node, request.place, request.code)
            await self._start_program(spec)
        else:
            await self._take_over(node, Replacement(prepared, log), request.grace)
            self._services.nodes.locate(node, request.place, request.code)

    async def _take_over(self, node: LocalNode, replacement: Replacement, grace: float) -> None:
        """Start the new process, then stop the old one."""
        spec = replacement.program.spec
        node.replacement = replacement
        self._dispatcher.emit(events.ReplacementPrepared(spec.id))
        if (error := replacement.error) is not None:
            raise RequestRefused(f'node "{spec.id}" cannot be spawned: {error}') from error
        number = replacement.incarnation
        lost = RequestRefused(
            f'node "{spec.id}" was stopped, or its new process ended, before it was replaced'
        )
        try:
            await self._until_connected(node, replacement)
            state = self._lookup.lifecycle(spec.id).state
            running = state in (NodeState.RUNNING, NodeState.BACKING_OFF)
            if node.replacement is not replacement or not running:
                raise lost
            # the client may disconnect: once the old process is stopped, the new one takes over
            with anyio.CancelScope(shield=True):
                self._dispatcher.emit(events.ReplacementConnected(spec, number, grace))
                await self._lookup.until(
                    spec.id,
                    lambda n: n.incarnation == number or n.state is not NodeState.STOPPING,
                )
        finally:
            if node.program is not replacement.program:
                replacement.kill()
                self._dispatcher.emit(events.ReplacementAbandoned(spec.id, number))
        if self._lookup.lifecycle(spec.id).incarnation != number:
            raise lost

    async def _start_program(self, spec: ResolvedNode) -> None:
        """Start the new program of a node that has ended or waits for a restart."""
        before = self._lookup.lifecycle(spec.id).incarnation
        self._dispatcher.emit(events.ProgramChanged(spec))

        def settled() -> bool:
            node = self._lookup.lifecycle(spec.id)
            return node.incarnation != before and (node.up or node.ended)

        with anyio.move_on_after(REPLACE_SECONDS):
            await self._dispatcher.until(settled)
        require_success(self._lookup.lifecycle(spec.id))

    def _check_replacement(self, spec: ResolvedNode) -> ResolvedNode:
        """Return the new node, if it can replace the one that runs."""
        require_running(self._dispatcher.state)
        current = self._lookup.lifecycle(spec.id)
        node = self._services.nodes[spec.id]
        old = node.spec
        if old.is_dynamic or spec.is_dynamic:
            raise RequestRefused(f'node "{spec.id}" is dynamic and cannot be replaced')
        if node.replacement is not None:
            raise RequestRefused(f'node "{spec.id}" is already being replaced')
        if current.state not in (NodeState.RUNNING, *_WITHOUT_PROCESS) and not current.steady:
            raise RequestRefused(f'node "{spec.id}" does not run (it is {current.state.value})')
        entries = self._services.registry.out_of(spec.id)
        require_same_ports(old, spec, (entry.edge.output for entry in entries))
        return spec.model_copy(update={"inputs": old.inputs})

    async def _until_connected(self, node: LocalNode, replacement: Replacement) -> None:
        def settled() -> bool:
            return replacement.connection is not None or node.replacement is not replacement

        with anyio.move_on_after(REPLACE_SECONDS):
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
            f'the new process of node "{node.id}" did not connect within {REPLACE_SECONDS:g} s'
        )
