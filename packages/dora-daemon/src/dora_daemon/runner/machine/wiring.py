"""Which inputs of which node are still open, and when a node has nothing more to expect; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dora_config.dataflow.resolved import ResolvedNode
from dora_config.dataflow.sources import OutputSource
from dora_node_api.frozen import Frozen


class Edge(Frozen):
    """From an output of ``source`` to an input of ``target``."""

    source: str
    output: str
    target: str
    input: str

    def __str__(self) -> str:
        return f"{self.source}/{self.output} -> {self.target}/{self.input}"


@dataclass(slots=True)
class Ports:
    """What one node reads. ``virtual``: it also has timers or ``dora/logs`` inputs."""

    virtual: bool = False
    edges: dict[str, Edge] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)


class Wiring:
    """The edges between the nodes of a dataflow and which of them have ended."""

    def __init__(self, nodes: Iterable[ResolvedNode], *, only_data_counts: bool = False) -> None:
        self._ports: dict[str, Ports] = {}
        self.only_data_counts = only_data_counts
        """``exit_when_nodes_finish``: timers and logs do not keep a node waiting."""
        for node in nodes:
            self.add_node(node)

    def add_node(self, node: ResolvedNode) -> None:
        """Take in a node with its inputs; all of them are open."""
        ports = Ports()
        for input_id, wanted in node.inputs.items():
            source = wanted.source
            if isinstance(source, OutputSource):
                ports.edges[input_id] = Edge(source.node, source.output, node.id, input_id)
            else:
                ports.virtual = True
        self._ports[node.id] = ports

    def set_reader(self, reader: str, edges: Iterable[Edge]) -> None:
        """Somebody who is no node reads these edges; those that had ended stay ended."""
        ports = self._ports.setdefault(reader, Ports())
        ports.edges = {edge.input: edge for edge in edges}
        ports.closed &= ports.edges.keys()

    def remove_node(self, node: str) -> list[Edge]:
        """Forget a node; returns the edges that went with it."""
        gone = list(self._ports.pop(node).edges.values())
        for ports in self._ports.values():
            for edge in [e for e in ports.edges.values() if e.source == node]:
                gone.append(ports.edges.pop(edge.input))
                ports.closed.discard(edge.input)
        return gone

    def add_edge(self, edge: Edge) -> None:
        """Connect an input; it is open."""
        ports = self._ports[edge.target]
        ports.edges[edge.input] = edge
        ports.closed.discard(edge.input)

    def remove_edge(self, edge: Edge) -> None:
        """Disconnect an input that ``edge`` feeds."""
        ports = self._ports[edge.target]
        if ports.edges.get(edge.input) == edge:
            del ports.edges[edge.input]
            ports.closed.discard(edge.input)

    def edges_from(self, node: str, outputs: Iterable[str] | None = None) -> list[Edge]:
        """Edges that start at ``outputs`` of a node (``None``: at any)."""
        wanted = None if outputs is None else set(outputs)
        return [
            edge
            for ports in self._ports.values()
            for edge in ports.edges.values()
            if edge.source == node and (wanted is None or edge.output in wanted)
        ]

    def edges_to(self, node: str) -> list[Edge]:
        """Edges that end at a node."""
        return list(self._ports[node].edges.values())

    def close(self, node: str, outputs: Iterable[str] | None = None) -> list[str]:
        """Nothing more comes from these outputs; returns the consumers that heard news."""
        consumers: dict[str, None] = {}
        for edge in self.edges_from(node, outputs):
            closed = self._ports[edge.target].closed
            if edge.input not in closed:
                closed.add(edge.input)
                consumers[edge.target] = None
        return list(consumers)

    def reopen(self, node: str, outputs: Iterable[str] | None = None) -> None:
        """A node is back: its outputs (``None``: all) bring something again."""
        for edge in self.edges_from(node, outputs):
            self._ports[edge.target].closed.discard(edge.input)

    def closed_inputs(self, node: str) -> tuple[str, ...]:
        """Inputs of a node that bring nothing more."""
        return tuple(sorted(self._ports[node].closed))

    def all_inputs_closed(self, node: str) -> bool:
        """Whether a node with at least one data input has nothing more to expect."""
        ports = self._ports[node]
        if not ports.edges or (ports.virtual and not self.only_data_counts):
            return False
        return ports.edges.keys() <= ports.closed

    def reads_only_virtual(self, node: str) -> bool:
        """Whether timers and logs are all that a node reads, and it reads some."""
        ports = self._ports[node]
        return ports.virtual and not ports.edges


def waiting_cycles(nodes: Iterable[ResolvedNode]) -> tuple[tuple[str, ...], ...]:
    """Groups of node ids that can wait for each other's full backpressure queues for ever."""
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for wanted in node.inputs.values():
            if wanted.queue_policy == "backpressure" and isinstance(wanted.source, OutputSource):
                readers.setdefault(wanted.source.node, []).append(node.id)
                readers.setdefault(node.id, [])
    if not readers:
        return ()
    from dora_config.dataflow.graph import cycles

    return tuple(tuple(cycle) for cycle in cycles(readers))
