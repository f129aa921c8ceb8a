"""Which streams leave and enter this machine, from the edges that cross; pure.

A *stream* is what one output sends to one machine, whatever number of inputs read it there. Log
lines cross in streams of their own: their node is ``dora`` and their output
``MACHINE/logs[/LEVEL[/NODE]]``, with the machine that they come from, so that no two are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dora_config.protocol.links import LinkPlan, RemoteEdge
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine.wiring import Edge
from dora_node_api.frozen import Frozen

LOGS = "dora"
"""Node that log lines come from, as it stands in edges and queues."""

RUNNER_NODE = "dora/runner"
"""The runner, where it stands for a node: it reads the log lines that come from other machines."""

LOG_LINES = 1000
"""Log lines that may wait on their way to another machine."""


class Outflow(Frozen):
    """A stream that leaves this machine."""

    machine: str
    """Where to."""
    node: str
    output: str
    bound: int
    backpressure: bool
    log_source: str | None = None
    """Which log lines, as an input names them (``dora/logs/info``)."""

    @property
    def edge(self) -> Edge:
        """The queue between the producer and the link."""
        name = f"{self.machine} {self.node}/{self.output}"
        return Edge(self.node, self.output, LINK_NODE, name)


class Inflow(Frozen):
    """A stream that enters this machine."""

    machine: str
    """Where from."""
    node: str
    output: str
    readers: tuple[tuple[str, str], ...] = ()
    """Node and input of each."""
    logs: bool = False
    """Log lines: the runner reads them, and passes them on to the readers."""

    @property
    def log_edge(self) -> Edge:
        """The queue between the link and the runner."""
        return Edge(self.node, self.output, RUNNER_NODE, self.output)


class Streams(Frozen):
    """All streams of one machine."""

    machine: str = ""
    outflows: tuple[Outflow, ...] = ()
    inflows: tuple[Inflow, ...] = ()

    @property
    def sources(self) -> Mapping[tuple[str, str], str]:
        """The machine of each output that is read here and sent elsewhere."""
        return {(flow.node, flow.output): flow.machine for flow in self.inflows}

    @property
    def remote_nodes(self) -> frozenset[str]:
        """Nodes of other machines that are read here."""
        return frozenset(flow.node for flow in self.inflows if not flow.logs)

    def outflow_of(self, edge: Edge) -> Outflow | None:
        """The stream that a queue into the link belongs to."""
        return next((flow for flow in self.outflows if flow.edge == edge), None)


def shown_target(edge: Edge) -> str:
    """The reading end as users are told of it."""
    if edge.target == LINK_NODE:
        return f"{edge.input.split()[0]} (link)"
    return f"{edge.target}/{edge.input}"


def crossing_cycles(plan: LinkPlan) -> tuple[tuple[str, ...], ...]:
    """Backpressure cycles over several machines: their nodes, and this machine's queues on them.

    A queue stands there as consumer and input, because what waits at the link waits for many.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for edge in plan.edges:
        for cycle in edge.cycles:
            queues = found.setdefault(cycle, [])
            if edge.source_machine == plan.machine:
                queue = Outflow(edge.target_machine, edge.source, edge.output, 1, True).edge
                queues.append(f"{queue.target}/{queue.input}")
    return tuple((*cycle, *queues) for cycle, queues in found.items())


def streams_of(plan: LinkPlan) -> Streams:
    """The streams that the edges of a plan make; edges between other machines are left out."""
    me = plan.machine
    leaving = [e for e in plan.edges if e.source_machine == me != e.target_machine]
    entering = [e for e in plan.edges if e.target_machine == me != e.source_machine]
    return Streams(me, tuple(_outflows(me, leaving)), tuple(_inflows(entering)))


def _outflows(me: str, edges: Iterable[RemoteEdge]) -> Iterable[Outflow]:
    grouped: dict[tuple[str, str, str], list[RemoteEdge]] = {}
    for edge in edges:
        grouped.setdefault((edge.target_machine, edge.source, edge.output), []).append(edge)
    for (machine, node, output), same in grouped.items():
        bound = max(edge.queue_size for edge in same)
        if node == LOGS:
            bound = max(bound, LOG_LINES)
            yield Outflow(machine, node, f"{me}/{output}", bound, False, f"{node}/{output}")
        else:
            waits = any(edge.queue_policy == "backpressure" for edge in same)
            yield Outflow(machine, node, output, bound, waits)


def _inflows(edges: Iterable[RemoteEdge]) -> Iterable[Inflow]:
    grouped: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for edge in edges:
        logs = edge.source == LOGS
        output = f"{edge.source_machine}/{edge.output}" if logs else edge.output
        key = (edge.source_machine, edge.source, output)
        grouped.setdefault(key, []).append((edge.target, edge.input))
    for (machine, node, output), readers in grouped.items():
        yield Inflow(machine, node, output, tuple(readers), node == LOGS)
