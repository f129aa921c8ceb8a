"""Streams that leave and enter this machine, computed from the edges between machines; pure.

A stream carries one output to one machine, for all inputs that read it there. Log lines have their
own streams with the node ``dora`` and the output ``MACHINE/logs[/LEVEL[/NODE]]``. MACHINE is the
sender, which makes the names unique.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dora_config.dataflow.compression import Compression, shared
from dora_config.protocol.links import LinkPlan, RemoteEdge
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.machine.edges import Edge
from dora_node_api.frozen import FrozenRecord
from dora_node_api.queue_policy import QueuePolicy

LOGS = "dora"
"""Source of log lines in edges and queues."""

RUNNER_NODE = "dora/runner"
"""The runner as the reader of log lines of other machines."""

LOG_LINES = 1000
"""Log lines that may be queued for another machine."""


class OutgoingStreamSpec(FrozenRecord):
    """A stream that leaves this machine."""

    machine: str
    """Destination."""
    node: str
    output: str
    bound: int
    policy: QueuePolicy
    log_source: str | None = None
    """Source of log lines as written in an input (``dora/logs/info``)."""
    compress: Compression | None = None

    @property
    def backpressure(self) -> bool:
        return self.policy is QueuePolicy.BACKPRESSURE

    @property
    def edge(self) -> Edge:
        """The queue between the producer and the link."""
        return _edge_to_link(self.node, self.output, self.machine)


class IncomingStreamSpec(FrozenRecord):
    """A stream that enters this machine."""

    machine: str
    """Machine of the node that sends the output."""
    node: str
    output: str
    readers: tuple[tuple[str, str], ...] = ()
    """Node and input of each reader."""
    logs: bool = False
    """Whether it carries log lines, which the runner receives and forwards to the readers."""

    @property
    def log_edge(self) -> Edge:
        """The queue between the link and the runner."""
        return Edge(self.node, self.output, RUNNER_NODE, self.output)


class MachineStreams(FrozenRecord):
    """All streams of one machine."""

    outgoing: tuple[OutgoingStreamSpec, ...] = ()
    incoming: tuple[IncomingStreamSpec, ...] = ()

    @property
    def sources(self) -> Mapping[tuple[str, str], str]:
        """Machine of each output that is read here but sent on another machine."""
        return {(stream.node, stream.output): stream.machine for stream in self.incoming}

    @property
    def remote_nodes(self) -> frozenset[str]:
        """Nodes of other machines that are read here."""
        return frozenset(stream.node for stream in self.incoming if not stream.logs)

    def outgoing_at(self, edge: Edge) -> OutgoingStreamSpec | None:
        """Return the stream that a queue into the link belongs to."""
        return next((stream for stream in self.outgoing if stream.edge == edge), None)


def _edge_to_link(node: str, output: str, machine: str) -> Edge:
    """Return the queue of an output for another machine."""
    return Edge(node, output, LINK_NODE, f"{machine} {node}/{output}")


def shown_target(edge: Edge) -> str:
    """Return the reading end of an edge as shown to users."""
    if edge.target == LINK_NODE:
        return f"{edge.input.split()[0]} (link)"
    return f"{edge.target}/{edge.input}"


def crossing_cycles(plan: LinkPlan) -> tuple[tuple[str, ...], ...]:
    """Return the backpressure cycles over several machines, each as the names of its members.

    Members are node ids, and ``LINK/INPUT`` for each queue from this machine into the link: the
    link itself is a member of many cycles.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for edge in plan.edges:
        for cycle in edge.cycles:
            queues = found.setdefault(cycle, [])
            if edge.source_machine == plan.machine:
                queue = _edge_to_link(edge.source, edge.output, edge.target_machine)
                queues.append(f"{queue.target}/{queue.input}")
    return tuple((*cycle, *queues) for cycle, queues in found.items())


def streams_of(plan: LinkPlan) -> MachineStreams:
    """Return the streams of the plan's machine; edges between other machines are ignored."""
    machine = plan.machine
    leaving = [e for e in plan.edges if e.source_machine == machine != e.target_machine]
    entering = [e for e in plan.edges if e.target_machine == machine != e.source_machine]
    return MachineStreams(tuple(_outgoing(machine, leaving)), tuple(_incoming(entering)))


def _outgoing(machine: str, edges: Iterable[RemoteEdge]) -> Iterable[OutgoingStreamSpec]:
    grouped: dict[tuple[str, str, str], list[RemoteEdge]] = {}
    for edge in edges:
        grouped.setdefault((edge.target_machine, edge.source, edge.output), []).append(edge)
    for (target, node, output), same in grouped.items():
        bound = max(edge.queue_size for edge in same)
        if node == LOGS:
            bound = max(bound, LOG_LINES)
            source = f"{node}/{output}"
            yield OutgoingStreamSpec(
                target, node, f"{machine}/{output}", bound, QueuePolicy.DROP_OLDEST, source
            )
        else:
            waits = any(edge.queue_policy == "backpressure" for edge in same)
            policy = QueuePolicy.BACKPRESSURE if waits else QueuePolicy.DROP_OLDEST
            compress = shared(edge.compress for edge in same)
            yield OutgoingStreamSpec(target, node, output, bound, policy, compress=compress)


def _incoming(edges: Iterable[RemoteEdge]) -> Iterable[IncomingStreamSpec]:
    grouped: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for edge in edges:
        logs = edge.source == LOGS
        output = f"{edge.source_machine}/{edge.output}" if logs else edge.output
        key = (edge.source_machine, edge.source, output)
        grouped.setdefault(key, []).append((edge.target, edge.input))
    for (machine, node, output), readers in grouped.items():
        yield IncomingStreamSpec(machine, node, output, tuple(readers), node == LOGS)
