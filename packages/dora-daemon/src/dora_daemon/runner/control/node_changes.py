"""Requests that stop, restart, add and remove nodes."""

from __future__ import annotations

import math

import anyio
import anyio.to_thread

from dora_config.dataflow.sources import OutputSource
from dora_config.protocol import runner as protocol
from dora_daemon.runner.control.edge_changes import EdgeChanges
from dora_daemon.runner.control.node_lookup import NodeLookup, require_running, require_success
from dora_daemon.runner.errors import QueueUnavailable, RequestRefused
from dora_daemon.runner.machine import events
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.node import NodeState
from dora_daemon.runner.nodes.local_nodes import LocalNode
from dora_daemon.runner.service import Runner

HOLD_POLL = 0.2
"""Seconds between checks whether a node still holds updates."""
CONNECT_SECONDS = 10.0
"""Seconds for an added node to connect; a later failure is not reported to the client."""
DRAIN_SECONDS = 2.0
"""Seconds for the readers of a removed node to read its last messages."""
DRAIN_INTERVAL = 0.02
"""Seconds between two checks of the queues of these readers."""
START_SECONDS = 60.0
"""Seconds for a restarted process to start, in addition to those to stop the former one."""


class NodeChanges:
    """Nodes of the running dataflow. Requests raise RequestRefused or InvalidChange."""

    def __init__(self, runner: Runner, lookup: NodeLookup, edges: EdgeChanges) -> None:
        self._runner = runner
        self._lookup = lookup
        self._edges = edges
        self._dispatcher = runner.dispatcher
        self._services = runner.services

    async def stop(self, node: str, grace: float, *, leaves: bool = False) -> None:
        """Stop a node and wait for its end; ``leaves``: it is removed after that."""
        found = self._lookup.lifecycle(node)
        if not leaves:
            self._services.nodes.set_stopped(node, stopped=True)
        self._dispatcher.emit(events.NodeStopRequested(node, grace, leaves))
        # limited for a dynamic node, which the runner cannot kill
        with anyio.move_on_after(grace if found.dynamic else math.inf):
            await self._lookup.until(node, lambda n: n.state in (NodeState.ENDED, NodeState.ABSENT))

    async def restart(self, request: protocol.RestartNode) -> None:
        """Restart a node and wait for its new process."""
        require_running(self._dispatcher.state)
        before = self._lookup.lifecycle(request.node)
        if before.dynamic:
            raise RequestRefused(
                f'node "{before.id}" is dynamic: restart its process where you started it'
            )
        former = before.incarnation
        self._services.nodes.set_stopped(request.node, stopped=False)
        self._dispatcher.emit(events.NodeRestartRequested(request.node, request.grace))
        with anyio.move_on_after(request.grace * 1.5 + START_SECONDS):
            await self._lookup.until(
                request.node,
                lambda n: (
                    n.incarnation != former and (n.pid is not None or n.state is NodeState.ENDED)
                ),
            )
            if self._lookup.lifecycle(request.node).pid is not None:
                return
        raise RequestRefused(f'node "{before.id}" did not start again; see its log')

    async def until_released(self, name: str, change: protocol.Holdable) -> None:
        """Wait while a node holds updates, unless the change is forced. Raises RequestRefused."""
        node, limit = self._services.nodes.get(name), change.hold_limit
        if node is None or change.force:
            return
        with anyio.move_on_after(limit):
            await self._dispatcher.until(lambda: node.held is None, HOLD_POLL)
        if (reason := node.held) is not None:
            raise RequestRefused(
                f'node "{name}" holds updates: {reason}; not changed within {limit:g} s (--force'
                " changes it at once)"
            )

    async def add(self, request: protocol.AddNode) -> None:
        """Add a node and wait for its start, but at most `CONNECT_SECONDS`."""
        require_running(self._dispatcher.state)
        spec, services = request.node, self._services
        if self._dispatcher.state.node(spec.id) is not None:
            raise RequestRefused(f'node "{spec.id}" already exists in this dataflow')
        for name, wanted in spec.inputs.items():
            self._edges.check_source(f"{spec.id}/{name}", wanted, of=spec)
        prepare = self._runner.preparer.prepare
        prepared = await anyio.to_thread.run_sync(prepare, spec, request.place)
        require_running(self._dispatcher.state)
        log = services.logs.open_log(prepared)
        services.nodes.add(node := LocalNode(prepared, log))
        self._runner.processes.expect([prepared])
        services.nodes.locate(node, request.place, request.code)
        try:
            if not spec.is_dynamic:
                services.router.create_inputs(spec)
        except QueueUnavailable:
            services.router.drop_all(spec.id)
            services.nodes.remove(spec.id)
            raise
        self._runner.files.write_index()
        self._runner.monitor.schedule()
        self._dispatcher.emit(events.NodeAdded(spec))
        if spec.is_dynamic:
            return
        with anyio.move_on_after(CONNECT_SECONDS):
            await self._dispatcher.until(lambda: self._has_settled(spec.id))
        await self._edges.until_fed(spec.id)
        added = self._lookup.lifecycle(spec.id)
        if not added.up:
            require_running(self._dispatcher.state)
        try:
            require_success(added)
        except RequestRefused:
            self._forget(spec.id)
            raise

    def _has_settled(self, node: str) -> bool:
        """Return whether an added node has started, or will not."""
        added, phase = self._lookup.lifecycle(node), self._dispatcher.state.phase
        return added.up or added.ended or phase in ("stopping", "finished")

    async def remove(self, node: str, grace: float) -> None:
        """Stop a node and remove it with its edges; its readers first receive its last messages."""
        await self.stop(node, grace, leaves=True)
        with anyio.move_on_after(DRAIN_SECONDS):
            await self._dispatcher.until(lambda: self._is_drained(node), DRAIN_INTERVAL)
        # another request may have restarted it meanwhile
        if not self._lookup.lifecycle(node).dynamic:
            await self.stop(node, grace, leaves=True)
        services = self._services
        for target in list(services.nodes.values()):
            for name, wanted in target.spec.inputs.items():
                source = wanted.source
                if isinstance(source, OutputSource) and source.node == node:
                    self._edges.remove(Edge(node, source.output, target.id, name))
        self._forget(node)

    def _is_drained(self, node: str) -> bool:
        """Return whether the readers have received what a node sent, or the dataflow has ended."""
        edges = self._services.registry.out_of(node)
        return self._dispatcher.state.phase == "finished" or not any(e.ends.depth() for e in edges)

    def _forget(self, node: str) -> None:
        """Remove an ended node."""
        services = self._services
        services.router.drop_all(node)
        services.sessions.remove(services.nodes[node])
        self._dispatcher.emit(events.NodeRemoved(node))
        services.nodes.remove(node)
        self._runner.files.write_index()

    def nodes(self) -> protocol.NodeDefinitions:
        """Return the nodes as they run now."""
        nodes = self._services.nodes
        return protocol.NodeDefinitions(
            revision=nodes.revision,
            nodes=tuple(node.current() for node in nodes.values()),
            params={node.id: dict(node.params) for node in nodes.values() if node.params},
            stopped=tuple(node.id for node in nodes.values() if node.stopped),
        )
