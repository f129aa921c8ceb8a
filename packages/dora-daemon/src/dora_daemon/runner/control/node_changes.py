"""Requests that stop, restart, replace, add, remove and connect nodes."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio
import anyio.to_thread

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol import runner as protocol
from dora_config.protocol.graph_checks import (
    input_of,
    require_edge,
    require_output,
    require_same_ports,
)
from dora_config.protocol.runner_events import DATAFLOW_ENDED
from dora_daemon.runner.errors import PartEnds, QueueUnavailable, RequestRefused
from dora_daemon.runner.machine import events
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.node import NodeLifecycle, NodeState
from dora_daemon.runner.machine.state import RunnerMachine
from dora_daemon.runner.nodes.local_nodes import LocalNode, Replacement
from dora_daemon.runner.service import Runner

HOLD_POLL = 0.2
"""Seconds between looks whether a node still holds updates."""
CONNECT_SECONDS = 10.0
"""Time for an added node to connect; it may take longer, but then its failure is not reported."""
DRAIN_SECONDS = 2.0
"""Seconds for the readers of a removed node to read its last messages."""
DRAIN_INTERVAL = 0.02
"""Seconds between two looks at the queues of these readers."""
LINK_SECONDS = 5.0
"""Time until the machines that send to a new input have received that it is read."""
REPLACE_SECONDS = 60.0
"""Time for the new program of a node to connect."""
START_SECONDS = 60.0
"""Time that a restarted process has to start, beside the time to stop the former one."""


_WITHOUT_PROCESS = (NodeState.ENDED, NodeState.BACKING_OFF)


def require_success(node: NodeLifecycle) -> None:
    """Raise RequestRefused if the node's process has failed."""
    result = node.result
    if result is not None and result.outcome != "success":
        cause = f": {result.stderr_tail[-1]}" if result.stderr_tail else ""
        raise RequestRefused(f'node "{node.id}" {result.message}{cause}')


def require_running(state: RunnerMachine) -> None:
    """Raise PartEnds if the dataflow is being stopped or has ended."""
    if state.phase == "stopping":
        raise PartEnds("the dataflow is stopping")
    if state.phase == "finished":
        raise PartEnds(DATAFLOW_ENDED)


class NodeChanges:
    """One method for each request. All raise RequestRefused or InvalidChange."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._dispatcher = runner.dispatcher
        self._services = runner.services

    def _find(self, node: str) -> NodeLifecycle:
        found = self._dispatcher.state.node(node)
        if found is None:
            known = ", ".join(sorted(self._services.nodes)) or "none"
            raise RequestRefused(
                f'node "{node}" does not exist in this part of the dataflow (its nodes: {known})'
            )
        return found

    def local(self, node: str) -> LocalNode:
        """Return the runner's state of a node. Raises RequestRefused."""
        return self._services.nodes[self._find(node).id]

    async def _until(self, node: str, condition: Callable[[NodeLifecycle], bool]) -> None:
        await self._dispatcher.until(lambda: condition(self._find(node)))

    async def stop(self, node: str, grace: float, *, leaves: bool = False) -> None:
        """Stop a node and wait for its end; ``leaves``: it is removed then."""
        found = self._find(node)
        if not leaves:
            self._services.nodes.set_stopped(node, stopped=True)
        self._dispatcher.emit(events.NodeStopRequested(node, grace, leaves))
        # the runner cannot kill a dynamic node
        with anyio.move_on_after(grace if found.dynamic else math.inf):
            await self._until(node, lambda n: n.state in (NodeState.ENDED, NodeState.ABSENT))

    async def restart(self, request: protocol.RestartNode) -> None:
        """Restart a node and wait for its new process."""
        require_running(self._dispatcher.state)
        before = self._find(request.node)
        if before.dynamic:
            raise RequestRefused(
                f'node "{before.id}" is dynamic: restart its process where you started it'
            )
        former = before.incarnation
        self._services.nodes.set_stopped(request.node, stopped=False)
        self._dispatcher.emit(events.NodeRestartRequested(request.node, request.grace))
        with anyio.move_on_after(request.grace * 1.5 + START_SECONDS):
            await self._until(
                request.node,
                lambda n: (
                    n.incarnation != former and (n.pid is not None or n.state is NodeState.ENDED)
                ),
            )
            if self._find(request.node).pid is not None:
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

    async def replace(self, request: protocol.ReplaceNode) -> None:
        """Replace a node. The old one runs on if this raises, unless it need not connect.

        Raises RequestRefused, InvalidChange and PreparationError.
        """
        spec = self._check_replacement(request.node)
        prepare = self._runner.preparer.prepare
        prepared = await anyio.to_thread.run_sync(prepare, spec, request.place)
        self._check_replacement(spec)
        node = self._services.nodes[spec.id]
        log = self._services.logs.new_log(prepared)
        if self._find(spec.id).steady:  # nothing to take over: the old program ends first
            self._dispatcher.emit(events.NodeStopRequested(spec.id, request.grace, leaves=True))
            await self._until(spec.id, lambda n: n.ended)
        if self._find(spec.id).state in _WITHOUT_PROCESS:
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
            state = self._find(spec.id).state
            running = state in (NodeState.RUNNING, NodeState.BACKING_OFF)
            if node.replacement is not replacement or not running:
                raise lost
            # the client may disconnect: once the old process is stopped, the new one takes over
            with anyio.CancelScope(shield=True):
                self._dispatcher.emit(events.ReplacementConnected(spec, number, grace))
                await self._until(
                    spec.id,
                    lambda n: n.incarnation == number or n.state is not NodeState.STOPPING,
                )
        finally:
            if node.program is not replacement.program:
                replacement.kill()
                self._dispatcher.emit(events.ReplacementAbandoned(spec.id, number))
        if self._find(spec.id).incarnation != number:
            raise lost

    async def _start_program(self, spec: ResolvedNode) -> None:
        """Start the new program of a node that has ended or waits for a restart."""
        before = self._find(spec.id).incarnation
        self._dispatcher.emit(events.ProgramChanged(spec))

        def settled() -> bool:
            node = self._find(spec.id)
            return node.incarnation != before and (node.up or node.ended)

        with anyio.move_on_after(REPLACE_SECONDS):
            await self._dispatcher.until(settled)
        require_success(self._find(spec.id))

    def _check_replacement(self, spec: ResolvedNode) -> ResolvedNode:
        """Return the new node, if it can replace the one that runs."""
        require_running(self._dispatcher.state)
        current = self._find(spec.id)
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

    async def add(self, request: protocol.AddNode) -> None:
        """Add a node and wait until it has started, for a while."""
        require_running(self._dispatcher.state)
        spec, services = request.node, self._services
        if self._dispatcher.state.node(spec.id) is not None:
            raise RequestRefused(f'node "{spec.id}" already exists in this dataflow')
        for name, wanted in spec.inputs.items():
            self._check_source(f"{spec.id}/{name}", wanted, of=spec)
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
        await self._until_fed(spec.id)
        added = self._find(spec.id)
        if not added.up:
            require_running(self._dispatcher.state)
        try:
            require_success(added)
        except RequestRefused:
            self._forget(spec.id)
            raise

    def _has_settled(self, node: str) -> bool:
        """Return whether an added node has started, or will not."""
        added, phase = self._find(node), self._dispatcher.state.phase
        return added.up or added.ended or phase in ("stopping", "finished")

    async def remove(self, node: str, grace: float) -> None:
        """Stop a node and remove it with its edges; its readers first receive its last messages."""
        await self.stop(node, grace, leaves=True)
        with anyio.move_on_after(DRAIN_SECONDS):
            await self._dispatcher.until(lambda: self._is_drained(node), DRAIN_INTERVAL)
        if not self._find(node).dynamic:  # another request may have restarted it meanwhile
            await self.stop(node, grace, leaves=True)
        services = self._services
        for target in list(services.nodes.values()):
            for name, wanted in target.spec.inputs.items():
                source = wanted.source
                if isinstance(source, OutputSource) and source.node == node:
                    self._disconnect(Edge(node, source.output, target.id, name))
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

    async def connect(self, request: protocol.ConnectInput) -> None:
        """Add an input to a node, and wait until it receives each message from then on."""
        require_running(self._dispatcher.state)
        services = self._services
        node = self.local(request.target)
        target = node.spec
        place = f"{target.id}/{request.input}"
        edge = Edge(request.source, request.output, target.id, request.input)
        wanted = input_of(request)
        if isinstance(wanted.source, OutputSource):
            if request.source in services.router.remote_nodes:
                self._check_link(place, wanted.source)
            else:
                self._check_source(place, wanted, of=self.local(request.source).spec)
        present = target.inputs.get(request.input)
        if present is not None and (edge.is_virtual or services.registry.get(edge) is not None):
            raise RequestRefused(f"input `{place}` already reads `{present.source}`")
        if present is not None and present.source != wanted.source:
            raise RequestRefused(f"input `{place}` reads `{present.source}`; disconnect that first")
        services.nodes.set_inputs(target.id, {**target.inputs, request.input: wanted})
        self._runner.monitor.schedule()
        self._dispatcher.emit(events.EdgeAdded(edge))
        if not target.is_dynamic or node.connection is not None:
            try:
                services.router.connect_input(target.id, request.input, wanted)
            except QueueUnavailable:
                if present is None:
                    self._disconnect(edge)
                raise
            await self._until_fed(target.id)

    async def _until_fed(self, node: str) -> None:
        """Wait until the other machines send to the inputs of a node.

        One that does not answer begins with a new connection, and sends to all inputs then.
        """
        link = self._runner.link
        if link is not None:
            with anyio.move_on_after(LINK_SECONDS):
                await self._dispatcher.until(lambda: link.feeds(node))

    def nodes(self) -> protocol.NodeDefinitions:
        """Return the nodes as they run now."""
        nodes = self._services.nodes
        return protocol.NodeDefinitions(
            revision=nodes.revision,
            nodes=tuple(node.current() for node in nodes.values()),
            params={node.id: dict(node.params) for node in nodes.values() if node.params},
            stopped=tuple(node.id for node in nodes.values() if node.stopped),
        )

    def disconnect(self, request: protocol.DisconnectInput) -> None:
        """Remove an input from a node."""
        target = self.local(request.target).spec
        require_edge(target, request)
        self._disconnect(Edge(request.source, request.output, target.id, request.input))

    def _disconnect(self, edge: Edge) -> None:
        target = self._services.nodes[edge.target]
        left = {name: wanted for name, wanted in target.spec.inputs.items() if name != edge.input}
        self._services.nodes.set_inputs(edge.target, left)
        target.inputs.closed(edge.input)
        self._runner.monitor.schedule()
        self._services.router.disconnect_input(edge)
        self._dispatcher.emit(events.EdgeRemoved(edge))

    def _check_source(self, place: str, wanted: ResolvedInput, *, of: ResolvedNode) -> None:
        """Refuse an output that its node does not have; the node itself may come later."""
        source = wanted.source
        if not isinstance(source, OutputSource):
            return
        node = self._services.nodes.get(source.node)
        if source.node == of.id:
            require_output(of, source, place)
        elif node is not None:
            require_output(node.spec, source, place)

    def _check_link(self, place: str, output: OutputSource) -> None:
        """Refuse an output of another machine that is not among the link's streams."""
        supervisor = self._runner.link
        if supervisor is None or not supervisor.has_source(output.node, output.output):
            raise RequestRefused(
                f"output `{output}`, mapped to input `{place}`, is on another machine and has no"
                " link to this one: the edge is missing in SetLinks"
            )
