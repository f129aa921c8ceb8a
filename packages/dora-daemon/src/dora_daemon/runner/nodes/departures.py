"""Cleans up after processes that have ended, and detects the end of dynamic nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from dora_daemon.runner.machine.events import Exit, NodeDetached, NodeExited, StateEvent
from dora_daemon.runner.nodes.local_nodes import LocalNode, LocalNodes, Participant
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_daemon.runner.process.injection import explain
from dora_daemon.runner.process.spawn import watch_process
from dora_node_api.protocol.extensions import ExtensionTable
from dora_node_api.protocol.messages import StopNode


@dataclass(eq=False)
class NodeDepartures:
    """Reports when nodes end and frees what their processes held.

    A spawned node ends with its process. A dynamic node ends with its process too, or when it
    closes its connection after `NodeLeaving`, or, if its process cannot be watched, when it closes
    it.
    """

    _nodes: LocalNodes
    _registry: QueueRegistry
    _extensions: ExtensionTable
    _emit: Callable[[StateEvent], None]

    def exited(self, node: LocalNode, incarnation: int, status: Exit) -> None:
        """Emit the exit of a spawned node, after all it sent was processed."""
        drained = self._registry.queued(node.id) == 0
        connection = node.connection
        admitted = connection is not None and connection.incarnation == incarnation
        self.process_ended(node, incarnation)
        self._registry.schedule_cleanup()
        self._emit(
            NodeExited(
                node.id,
                incarnation,
                status,
                drained=drained,
                stderr_tail=tuple(node.log.tail),
                explanation=None if admitted else explain(node.program.facts),
            )
        )

    def process_ended(self, who: Participant, incarnation: int) -> None:
        """Free what a reaped process held; call this before the state machine gets the event."""
        connection = who.connection
        if connection is not None and connection.incarnation == incarnation:
            # it may have sent the segment of its last sample
            connection.read_waiting()
            who.connection = None
            connection.close()
        self._extensions.forget(who.id)
        self._registry.consumer_died(who.id)
        self._registry.producer_died(who.id, incarnation)

    def remove(self, node: LocalNode) -> None:
        """Disconnect the process of a node that leaves the dataflow."""
        connection, node.connection = node.connection, None
        if connection is not None:
            _unwatch(connection)
            connection.send(StopNode())
            connection.close_when_sent()
        if node.area is not None:
            self._registry.board.free_node(node.area)

    def watch(self, node: LocalNode) -> None:
        """End a dynamic node when its process exits."""
        connection = node.connection
        if connection is None or not connection.pid or not node.spec.is_dynamic:
            return
        descriptor = watch_process(connection.pid)
        if descriptor is not None:
            connection.exit_fd = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._detach, connection)

    def disconnected(self, connection: NodeConnection) -> None:
        """End a dynamic node whose connection was closed, unless its exit will be detected."""
        if connection.exit_fd is None or connection.leaving:
            self._detach(connection)

    def _detach(self, connection: NodeConnection) -> None:
        _unwatch(connection)
        connection.read_waiting()
        connection.close()
        node, incarnation = self._nodes.get(connection.node or ""), connection.incarnation
        if node is None or incarnation is None or node.connection is not connection:
            return
        if node.spec.is_dynamic:
            self.process_ended(node, incarnation)
            self._emit(NodeDetached(node.id, incarnation))

    def close(self) -> None:
        for node in self._nodes.values():
            if node.connection is not None:
                _unwatch(node.connection)


def _unwatch(connection: NodeConnection) -> None:
    descriptor, connection.exit_fd = connection.exit_fd, None
    if descriptor is not None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
