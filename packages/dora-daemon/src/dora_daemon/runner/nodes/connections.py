"""Connections of admitted processes, by node."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dora_daemon.runner.nodes.socket import NodeConnection
from dora_node_api.protocol.messages import Message


class Connections:
    """One connection for each node, and one for the link."""

    def __init__(self) -> None:
        self._by_node: dict[str, NodeConnection] = {}
        self.connected_at: dict[str, float] = {}
        """Monotonic time of admission, or of the release from the start barrier."""

    def __contains__(self, node: object) -> bool:
        return node in self._by_node

    def get(self, node: str) -> NodeConnection | None:
        return self._by_node.get(node)

    def add(self, node: str, connection: NodeConnection) -> None:
        self._by_node[node] = connection
        self.connected_at[node] = time.monotonic()

    def remove(self, node: str) -> NodeConnection | None:
        """Forget a connection without closing it."""
        return self._by_node.pop(node, None)

    def send(self, node: str, message: Message, descriptors: Sequence[int] = ()) -> bool:
        """Send to a node; return whether it is connected."""
        connection = self._by_node.get(node)
        if connection is None or connection.closed:
            return False
        connection.send(message, descriptors)
        return True

    def read_waiting(self, incarnation: int, *, except_for: NodeConnection | None) -> None:
        """Process everything that a process has sent so far."""
        for connection in list(self._by_node.values()):
            if connection.incarnation == incarnation and connection is not except_for:
                connection.read_waiting()
