"""Creates and drops queues, and sends routes and inputs to the processes at their ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from dora_config.dataflow.resolved import ResolvedInput, ResolvedNode
from dora_config.dataflow.sources import LogSource, OutputSource, TimerSource, parse_source
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.streams import LOGS, RUNNER_NODE, OutgoingStreamSpec
from dora_daemon.runner.nodes.local_nodes import LocalNodes, QueueUser
from dora_daemon.runner.nodes.node_config import input_config, link_input
from dora_daemon.runner.nodes.publishing import RunnerOutputs
from dora_daemon.runner.nodes.queues import (
    NO_LIMIT,
    QueueEntry,
    QueueRegistry,
    hold_limit,
)
from dora_node_api.protocol.messages import AddInput, AddRoute, RemoveInput, RemoveRoute
from dora_node_api.queue_policy import QueuePolicy


@dataclass(eq=False)
class QueueRouter:
    """Queues of nodes, of the link and of the runner's own outputs."""

    _nodes: LocalNodes
    _registry: QueueRegistry
    _outputs: RunnerOutputs
    remote_nodes: frozenset[str] = frozenset()
    """Nodes of other machines: the link writes into the queues of their readers."""
    _on_link_queues: Callable[[], None] = lambda: None

    def set_remote_nodes(self, nodes: frozenset[str], on_link_queues: Callable[[], None]) -> None:
        """Set the nodes of other machines.

        ``on_link_queues`` is called when a queue that the link writes into is created or dropped.
        """
        self.remote_nodes = nodes
        self._on_link_queues = on_link_queues

    def create_inputs(self, spec: ResolvedNode) -> None:
        """Create the missing queues of a node's inputs. Raises QueueUnavailable."""
        for name, wanted in spec.inputs.items():
            self._create_input(spec.id, name, wanted)

    def _create_input(self, node: str, name: str, wanted: ResolvedInput) -> QueueEntry | None:
        """Return the queue of an input; None for a timer."""
        source = wanted.source
        log_source: LogSource | None = None
        match source:
            case TimerSource():
                return None
            case LogSource():
                edge = Edge(LOGS, "logs", node, name)
                log_source = source
                writer = RUNNER_NODE
            case OutputSource():
                edge = Edge(source.node, source.output, node, name)
                writer = self.writer_of(source)
        producer = self._nodes.get(edge.source)
        entry, is_new = self._registry.ensure(
            edge,
            bound=wanted.queue_size,
            policy=QueuePolicy(wanted.queue_policy),
            writer=writer,
            log_source=log_source,
            hold_limit=hold_limit(None if producer is None else producer.spec, os.environ),
        )
        if is_new:
            self.route(entry)
        return entry

    def connect_input(self, node: str, name: str, wanted: ResolvedInput) -> None:
        """Add an input to a running node."""
        entry = self._create_input(node, name, wanted)
        message = AddInput(input_config(name, wanted), None if entry is None else entry.spec)
        self._nodes.send(node, message, () if entry is None else entry.ends.for_consumer())

    def renew(self, entry: QueueEntry) -> bool:
        """Replace the queue of a node's input; the messages in the former one are lost.

        Return False if its reader is not a node. Raises QueueUnavailable.
        """
        target, name = entry.edge.target, entry.edge.input
        node = self._nodes.get(target)
        wanted = None if node is None else node.spec.inputs.get(name)
        if wanted is None:
            return False
        self.drop(entry)
        self.connect_input(target, name, wanted)
        return True

    def disconnect_input(self, edge: Edge) -> None:
        """Remove an input from a running node."""
        self._nodes.send(edge.target, RemoveInput(edge.input))
        for entry in self._registry.into(edge.target):
            if entry.edge.input == edge.input:
                self.drop(entry)

    def drop_inputs(self, node: str) -> None:
        """Drop the queues of a node that will not read again, so that no producer waits for it."""
        for entry in self._registry.into(node):
            self.drop(entry)

    def drop_all(self, node: str) -> None:
        """Drop the queues into and out of a node."""
        for entry in [*self._registry.into(node), *self._registry.out_of(node)]:
            self.drop(entry)

    def create_outgoing(self, stream: OutgoingStreamSpec) -> None:
        """Create the missing queue of a stream that leaves this machine."""
        edge = stream.edge
        source = OutputSource(node=stream.node, output=stream.output)
        log_source = None if stream.log_source is None else parse_source(stream.log_source)
        assert log_source is None or isinstance(log_source, LogSource)
        entry, is_new = self._registry.ensure(
            edge,
            bound=stream.bound,
            policy=stream.policy,
            writer=RUNNER_NODE if log_source is not None else self.writer_of(source),
            log_source=log_source,
            # the link keeps unacknowledged samples; copies of them would be lost with its process
            hold_limit=NO_LIMIT,
            journal=True,
        )
        if not is_new:
            return
        self.route(entry)
        message = AddInput(link_input(entry), entry.spec)
        self._nodes.send(LINK_NODE, message, entry.ends.for_consumer())

    def drop_outgoing(self, entry: QueueEntry) -> None:
        """Drop the queue of a stream that no longer leaves this machine."""
        self.drop(entry)
        self._nodes.send(LINK_NODE, RemoveInput(entry.edge.input))

    def writer_of(self, source: OutputSource) -> str:
        """Return the sender of an output: node, link or, for printed lines, the runner."""
        if source.node in self.remote_nodes:
            return LINK_NODE
        node = self._nodes.get(source.node)
        printed = node is not None and source.output in node.spec.printed_outputs
        return RUNNER_NODE if printed else source.node

    def route(self, entry: QueueEntry) -> None:
        """Pass a new queue to its producer. Raises QueueUnavailable, and drops the queue then."""
        if entry.writer == RUNNER_NODE:
            try:
                self._outputs.add_route(entry)
            except QueueUnavailable:
                self._registry.drop(entry.edge)
                raise
        elif (writer := self._nodes.participant(entry.writer)) is not None:
            send_route(writer, entry)
        if entry.writer == LINK_NODE:
            self._on_link_queues()

    def drop(self, entry: QueueEntry) -> None:
        """Remove a queue from its producer, then close it."""
        if entry.writer == RUNNER_NODE:
            self._outputs.remove_route(entry)
        else:
            self._nodes.send(entry.writer, RemoveRoute(entry.spec.queue))
        self._registry.drop(entry.edge)
        if entry.writer == LINK_NODE:
            self._on_link_queues()


def send_route(writer: QueueUser, entry: QueueEntry) -> None:
    """Send a queue to its producer."""
    edge = entry.edge
    output = f"{edge.source}/{edge.output}" if entry.writer == LINK_NODE else edge.output
    writer.send(AddRoute(output, entry.spec), entry.ends.for_producer())
