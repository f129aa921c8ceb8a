"""Open and ended inputs of every node; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import LogSource, OutputSource
from dora_daemon.runner.machine import events
from dora_daemon.runner.machine.commands import AnnounceClosed, Command
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.left_over import LeftOver


@dataclass(slots=True)
class NodeInputs:
    """Inputs of one node."""

    timers: set[str] = field(default_factory=set)
    logs: set[str] = field(default_factory=set)
    """Inputs from ``dora/logs``."""
    edges: dict[str, Edge] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)

    def virtual(self, edge: Edge) -> set[str]:
        """Return the set to which an edge from a timer or from ``dora/logs`` belongs."""
        return self.logs if edge.output.partition("/")[0] == "logs" else self.timers

    def open_sources(self) -> set[str]:
        """Return the nodes that still send."""
        return {edge.source for name, edge in self.edges.items() if name not in self.closed}


class Wiring:
    """The edges between the nodes of a dataflow and which of them have ended.

    Methods that close inputs return the readers whose inputs may all have ended now.
    """

    def __init__(self, nodes: Iterable[ResolvedNode], *, only_data_counts: bool = False) -> None:
        """``only_data_counts`` (``exit_when_nodes_finish``): timers and logs keep no node open."""
        self._inputs: dict[str, NodeInputs] = {}
        self._only_data_counts = only_data_counts
        for node in nodes:
            self.add_node(node)

    def handle(self, event: events.EdgeEvent) -> tuple[list[Command], list[str]]:
        """Apply a change of edges; return commands, and readers as described above."""
        match event:
            case events.OutputsClosed(node=node, outputs=outputs):
                return [AnnounceClosed(node, outputs)], self.close(node, outputs)
            case events.SourceClosed(node=node, output=output):
                return [], self.close(node, (output,))
            case events.SourceLost(node=node, output=output):
                readers = self.close(node, (output,))
                return [AnnounceClosed(node, (output,))] if readers else [], readers
            case events.SourceReopened(node=node, output=output):
                self.reopen(node, (output,))
                return [], []
            case events.EdgeAdded(edge=edge):
                inputs = self._inputs[edge.target]
                if edge.is_virtual:
                    inputs.virtual(edge).add(edge.input)
                else:
                    inputs.edges[edge.input] = edge
                    inputs.closed.discard(edge.input)
                return [], []
            case events.EdgeRemoved(edge=edge):
                inputs = self._inputs[edge.target]
                if edge.is_virtual:
                    inputs.virtual(edge).discard(edge.input)
                elif inputs.edges.get(edge.input) == edge:
                    del inputs.edges[edge.input]
                    inputs.closed.discard(edge.input)
                return [], [edge.target]

    def add_node(self, node: ResolvedNode) -> None:
        """Add a node whose inputs are all open."""
        inputs = NodeInputs()
        for input_id, wanted in node.inputs.items():
            source = wanted.source
            if isinstance(source, OutputSource):
                inputs.edges[input_id] = Edge(source.node, source.output, node.id, input_id)
            elif isinstance(source, LogSource):
                inputs.logs.add(input_id)
            else:
                inputs.timers.add(input_id)
        self._inputs[node.id] = inputs

    def set_reader(self, reader: str, edges: Iterable[Edge]) -> None:
        """Set the edges of a reader that is not a node; ended ones stay ended."""
        inputs = self._inputs.setdefault(reader, NodeInputs())
        inputs.edges = {edge.input: edge for edge in edges}
        inputs.closed &= inputs.edges.keys()

    def remove_node(self, node: str) -> list[str]:
        """Remove a node with its edges; return the readers of its outputs."""
        del self._inputs[node]
        readers = []
        for reader, inputs in self._inputs.items():
            lost = [edge.input for edge in inputs.edges.values() if edge.source == node]
            for input_id in lost:
                del inputs.edges[input_id]
                inputs.closed.discard(input_id)
            if lost:
                readers.append(reader)
        return readers

    def _edges_from(self, node: str, outputs: Iterable[str] | None) -> list[Edge]:
        """Return the edges that start at ``outputs`` of a node (``None``: at any)."""
        wanted = None if outputs is None else set(outputs)
        return [
            edge
            for inputs in self._inputs.values()
            for edge in inputs.edges.values()
            if edge.source == node and (wanted is None or edge.output in wanted)
        ]

    def close(self, node: str, outputs: Iterable[str] | None = None) -> list[str]:
        """End the inputs that read these outputs; return the nodes whose inputs were still open."""
        readers: dict[str, None] = {}
        for edge in self._edges_from(node, outputs):
            closed = self._inputs[edge.target].closed
            if edge.input not in closed:
                closed.add(edge.input)
                readers[edge.target] = None
        return list(readers)

    def reopen(self, node: str, outputs: Iterable[str] | None = None) -> None:
        """Open the inputs that read these outputs (``None``: all) of a restarted node."""
        for edge in self._edges_from(node, outputs):
            self._inputs[edge.target].closed.discard(edge.input)

    def closed_inputs(self, node: str) -> tuple[str, ...]:
        """Return the ended inputs of a node."""
        return tuple(sorted(self._inputs[node].closed))

    def all_inputs_closed(self, node: str) -> bool:
        """Return whether a node has data inputs and all its inputs have ended."""
        inputs = self._inputs[node]
        virtual = inputs.timers or inputs.logs
        if not inputs.edges or (virtual and not self._only_data_counts):
            return False
        return inputs.edges.keys() <= inputs.closed

    def reads_only_virtual(self, node: str) -> bool:
        """Return whether a node has inputs and all of them are timers or logs."""
        inputs = self._inputs[node]
        return bool(inputs.timers or inputs.logs) and not inputs.edges

    def reads_only_logs(self, node: str) -> bool:
        """Return whether ``dora/logs`` is all that a node still reads."""
        inputs = self._inputs[node]
        return bool(inputs.logs) and not inputs.timers and not inputs.open_sources()

    def only_virtual(self, nodes: Collection[str]) -> bool:
        """Return whether none of these nodes keeps the dataflow running.

        Readers of logs do not; those of timers do not if only data counts.
        """
        return all(map(self.reads_only_logs, nodes)) or (
            self._only_data_counts and all(map(self.reads_only_virtual, nodes))
        )

    def left_over(self, left: Collection[str]) -> LeftOver | None:
        """Return event sources of these nodes; None if other ones, or ones without inputs, send."""
        every = [(node, self._inputs[node]) for node in left]
        if any(not one.edges and not one.timers and not one.logs for _, one in every):
            return None
        if not all(one.open_sources() <= set(left) for _, one in every):
            return None
        return LeftOver(
            timers=tuple(node for node, one in every if one.timers),
            logs=tuple(node for node, one in every if one.logs),
            waiting=tuple(node for node, one in every if one.open_sources()),
            each_other=all(
                self._inputs[source].open_sources()
                for _, one in every
                for source in one.open_sources()
            ),
        )
