"""Connections of admitted processes, and states that they save, by node."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from dora_daemon.runner.nodes.socket import NodeConnection
from dora_node_api.protocol.messages import Message, RestoreState, SaveState


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


@dataclass(frozen=True, slots=True)
class SavedState:
    """A state in a memory file of which this process holds the descriptor."""

    incarnation: int
    descriptor: int
    message: SaveState


class SavedStates:
    """At most one state a node; the first process after the one that saved it gets it."""

    def __init__(self) -> None:
        self._by_node: dict[str, SavedState] = {}

    def save(self, node: str, incarnation: int, message: SaveState, descriptor: int) -> None:
        """Keep a state and its descriptor instead of an earlier one."""
        self.drop(node)
        self._by_node[node] = SavedState(incarnation, descriptor, message)

    def restore(self, node: str, connection: NodeConnection) -> None:
        """Send the state of a former process to an admitted one, and forget it."""
        saved = self._by_node.get(node)
        if saved is None or saved.incarnation == connection.incarnation:
            return
        message = RestoreState(saved.message.format, saved.message.size)
        connection.send(message, (saved.descriptor,))
        self.drop(node)

    def drop(self, node: str) -> None:
        """Forget the state of a node, if there is one."""
        saved = self._by_node.pop(node, None)
        if saved is not None:
            os.close(saved.descriptor)

    def close(self) -> None:
        for node in list(self._by_node):
            self.drop(node)
