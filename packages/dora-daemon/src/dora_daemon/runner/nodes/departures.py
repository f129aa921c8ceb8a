"""Cleans up after processes that have ended, and detects the end of dynamic nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from dora_daemon.runner.machine.events import Exit, NodeDetached, NodeExited, StateEvent
from dora_daemon.runner.nodes.connections import Connections
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.queues import QueueCleanup, QueueRegistry
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_daemon.runner.process.injection import explain
from dora_daemon.runner.process.spawn import watch_process
from dora_node_api.protocol.extensions import ExtensionTable
from dora_node_api.protocol.messages import StopNode


class NodeDepartures:
    """Reports when nodes end and frees what their processes held.

    A spawned node ends with its process. A dynamic node ends with its process too, or when it
    closes its connection after `NodeLeaving`, or, if its process cannot be watched, when it closes
    it.
    """

    def __init__(
        self,
        nodes: LocalNodes,
        connections: Connections,
        registry: QueueRegistry,
        cleanup: QueueCleanup,
        extensions: ExtensionTable,
        emit: Callable[[StateEvent], None],
    ) -> None:
        self._nodes = nodes
        self._connections = connections
        self._registry = registry
        self._cleanup = cleanup
        self._extensions = extensions
        self._emit = emit
        self._watched: dict[NodeConnection, int] = {}
        """Process descriptors of attached dynamic nodes."""

    def exited(self, node: str, incarnation: int, status: Exit) -> None:
        """Emit the exit of a spawned node, after all it sent was processed."""
        drained = self._registry.queued(node) == 0
        connection = self._connections.get(node)
        admitted = connection is not None and connection.incarnation == incarnation
        self.process_ended(node, incarnation)
        self._cleanup.schedule()
        self._emit(
            NodeExited(
                node,
                incarnation,
                status,
                drained=drained,
                stderr_tail=tuple(self._nodes.logs[node].tail),
                explanation=None if admitted else explain(self._nodes.prepared[node].facts),
            )
        )

    def process_ended(self, node: str, incarnation: int) -> None:
        """Free what a reaped process held; call this before the state machine gets the event."""
        connection = self._connections.get(node)
        if connection is not None and connection.incarnation == incarnation:
            # it may have sent the segment of its last sample
            connection.read_waiting()
            self._connections.remove(node)
            connection.close()
        self._extensions.forget(node)
        self._registry.consumer_died(node)
        self._registry.producer_died(node, incarnation)

    def remove(self, node: str) -> None:
        """Disconnect the process of a node that leaves the dataflow."""
        connection = self._connections.remove(node)
        if connection is not None:
            self._unwatch(connection)
            connection.send(StopNode())
            connection.close_when_sent()

    def watch(self, connection: NodeConnection) -> None:
        """End a dynamic node when its process exits."""
        descriptor = watch_process(connection.pid) if connection.pid else None
        if descriptor is not None:
            self._watched[connection] = descriptor
            asyncio.get_running_loop().add_reader(descriptor, self._detach, connection)

    def disconnected(self, connection: NodeConnection) -> None:
        """End a dynamic node whose connection was closed, unless its exit will be detected."""
        if connection not in self._watched or connection.leaving:
            self._detach(connection)

    def _detach(self, connection: NodeConnection) -> None:
        self._unwatch(connection)
        connection.read_waiting()
        connection.close()
        node, incarnation = connection.node, connection.incarnation
        if node is None or incarnation is None or self._connections.get(node) is not connection:
            return
        spec = self._nodes.specs.get(node)
        if spec is not None and spec.is_dynamic:
            self.process_ended(node, incarnation)
            self._emit(NodeDetached(node, incarnation))

    def _unwatch(self, connection: NodeConnection) -> None:
        descriptor = self._watched.pop(connection, None)
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def close(self) -> None:
        for connection in list(self._watched):
            self._unwatch(connection)
