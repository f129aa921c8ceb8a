"""Requests that connect and disconnect inputs of nodes."""

from __future__ import annotations

import anyio

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import OutputSource
from dora_config.protocol import runner as protocol
from dora_config.protocol.graph_checks import input_of, require_edge, require_output
from dora_daemon.runner.control.node_lookup import NodeLookup, require_running
from dora_daemon.runner.errors import QueueUnavailable, RequestRefused
from dora_daemon.runner.machine import events
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.service import Runner

LINK_SECONDS = 5.0
"""Seconds for other machines to begin to send to a new input."""


class EdgeChanges:
    """Edges of the running dataflow. Requests raise RequestRefused or InvalidChange."""

    def __init__(self, runner: Runner, lookup: NodeLookup) -> None:
        self._runner = runner
        self._lookup = lookup
        self._dispatcher = runner.dispatcher
        self._services = runner.services

    async def connect(self, request: protocol.ConnectInput) -> None:
        """Add an input to a node, and wait until it receives each message from then on."""
        require_running(self._dispatcher.state)
        services = self._services
        node = self._lookup.local(request.target)
        target = node.spec
        place = f"{target.id}/{request.input}"
        edge = Edge(request.source, request.output, target.id, request.input)
        wanted = input_of(request)
        if isinstance(wanted.source, OutputSource):
            if request.source in services.router.remote_nodes:
                self._check_link(place, wanted.source)
            else:
                self.check_source(place, wanted, of=self._lookup.local(request.source).spec)
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
                    self.remove(edge)
                raise
            await self.until_fed(target.id)

    async def until_fed(self, node: str) -> None:
        """Wait until the other machines send to the inputs of a node.

        A machine that does not answer sends to all inputs as soon as it connects again.
        """
        link = self._runner.link
        if link is not None:
            with anyio.move_on_after(LINK_SECONDS):
                await self._dispatcher.until(lambda: link.feeds(node))

    def disconnect(self, request: protocol.DisconnectInput) -> None:
        """Remove an input from a node."""
        target = self._lookup.local(request.target).spec
        require_edge(target, request)
        self.remove(Edge(request.source, request.output, target.id, request.input))

    def remove(self, edge: Edge) -> None:
        """Remove an edge from its target."""
        target = self._services.nodes[edge.target]
        left = {name: wanted for name, wanted in target.spec.inputs.items() if name != edge.input}
        self._services.nodes.set_inputs(edge.target, left)
        target.inputs.closed(edge.input)
        self._runner.monitor.schedule()
        self._services.router.disconnect_input(edge)
        self._dispatcher.emit(events.EdgeRemoved(edge))

    def check_source(self, place: str, wanted: ResolvedInput, *, of: ResolvedNode) -> None:
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
