"""Admits processes that send Hello: checks them, then sends configuration, inputs and routes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

import dora_node_api
from dora_config.dataflow.resolved import ResolvedNode
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.link import LINK_NODE
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.machine.events import LinkConnected, NodeConnected, StateEvent
from dora_daemon.runner.nodes.connections import Connections, SavedStates
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.node_config import link_input, node_config
from dora_daemon.runner.nodes.queues import QueueRegistry
from dora_daemon.runner.nodes.routing import QueueRouter, send_route
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_daemon.runner.nodes.socket import NodeConnection
from dora_node_api.protocol.messages import (
    PROTOCOL_VERSION,
    Go,
    Hello,
    NodeConfig,
    Refused,
    SetParam,
    StopNode,
    Welcome,
)
from dora_node_api.transport.shared.errors import BoardFull


class NodeHandshake:
    """Processes between Hello and Welcome. The state machine decides who is admitted."""

    def __init__(
        self,
        plan: RunPlan,
        nodes: LocalNodes,
        connections: Connections,
        registry: QueueRegistry,
        router: QueueRouter,
        segments: SegmentTable,
        states: SavedStates,
        *,
        emit: Callable[[StateEvent], None],
        warn: Callable[[str], None],
        on_staged: Callable[[], None],
        cycles: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        """``on_staged`` is called when a replacement has connected."""
        self._plan = plan
        self._nodes = nodes
        self._connections = connections
        self._registry = registry
        self._router = router
        self._segments = segments
        self._states = states
        self._emit = emit
        self._warn = warn
        self._on_staged = on_staged
        self._cycles = cycles
        self._pending: dict[str, NodeConnection] = {}
        self._staged: dict[int, NodeConnection | None] = {}
        self._areas: dict[str, int] = {}
        """A node's area on the status board."""

    def hello(self, connection: NodeConnection, hello: Hello) -> None:
        """Refuse a process, or submit it to the state machine."""
        problem = self._problem(connection, hello)
        if problem is not None:
            connection.send(Refused(problem))
            connection.close_when_sent()
            return
        node, incarnation = hello.node_id, hello.incarnation
        connection.node = node
        if incarnation is not None and incarnation in self._staged:
            self._staged[incarnation] = connection
            self._on_staged()
            return
        self._pending[node] = connection
        if node == LINK_NODE:
            self._emit(LinkConnected(incarnation or 0))
        else:
            self._emit(NodeConnected(node, incarnation, connection.pid or hello.pid))

    def _problem(self, connection: NodeConnection, hello: Hello) -> str | None:
        """Return why a process is refused regardless of the state of the dataflow."""
        if connection.node is not None:
            return "this connection has sent Hello before"
        if hello.protocol != PROTOCOL_VERSION:
            return (
                f"this runner supports protocol {PROTOCOL_VERSION} with nodes, but the package at"
                f" {hello.package or 'an unknown place'} uses {hello.protocol} (version"
                f" {hello.version or 'unknown'}); install the same version of dora-node-api and"
                " dora-daemon"
            )
        spec = self._nodes.specs.get(hello.node_id)
        if spec is None:
            return None
        self._check_package(hello)
        if hello.incarnation is None and not spec.is_dynamic:
            return (
                f'node "{spec.id}" is not dynamic: the dataflow starts it. To attach a process'
                " yourself, set `path: dynamic`"
            )
        if hello.incarnation is not None and spec.is_dynamic:
            return f'node "{spec.id}" is dynamic: create it with Node("{spec.id}")'
        if spec.is_dynamic and self._pending.get(spec.id, connection) is not connection:
            return f'another process is being attached as node "{spec.id}"'
        return None

    def _check_package(self, hello: Hello) -> None:
        """Warn if a node does not use the dora_node_api that is first on its path."""
        if hello.version and hello.version != dora_node_api.__version__:
            self._warn(
                f'node "{hello.node_id}" uses dora_node_api {hello.version} from {hello.package}'
                f" instead of {dora_node_api.__version__} of this runner"
            )

    def disconnected(self, connection: NodeConnection) -> None:
        """Forget a process that hung up before it was admitted."""
        node = connection.node
        if node is not None and self._pending.get(node) is connection:
            del self._pending[node]

    def stage(self, incarnation: int) -> None:
        """Expect the Hello of a process that will replace another."""
        self._staged[incarnation] = None

    def is_staged(self, incarnation: int) -> bool:
        """Return whether an expected replacement has connected."""
        return self._staged.get(incarnation) is not None

    def unstage(self, incarnation: int) -> None:
        """Stop expecting a replacement."""
        self._staged.pop(incarnation, None)

    def promote(self, incarnation: int) -> None:
        """Submit a replacement to the state machine as if it had just sent Hello."""
        connection = self._staged.pop(incarnation)
        if connection is not None and connection.node is not None:
            self._pending[connection.node] = connection
            self._emit(NodeConnected(connection.node, incarnation, connection.pid))

    def admit(self, node: str, incarnation: int, restarts: int) -> NodeConnection | None:
        """Welcome a node: configuration, inputs, routes, parameters. Return None on failure."""
        spec = self._nodes.specs[node]
        config = node_config(self._plan, spec, restarts, self._cycles)
        connection = self._admit(node, incarnation, config, spec)
        if connection is not None:
            for key, value in self._nodes.params.get(node, {}).items():
                connection.send(SetParam(key, value))
        return connection

    def admit_link(self, incarnation: int) -> None:
        """Welcome the link as a node whose inputs are the streams that leave this machine."""
        config = NodeConfig(
            dataflow_id=self._plan.dataflow_id,
            node_id=LINK_NODE,
            inputs=tuple(link_input(entry) for entry in self._registry.into(LINK_NODE)),
            machine_id=self._plan.machine_id,
        )
        connection = self._admit(LINK_NODE, incarnation, config, None)
        if connection is not None:
            connection.send(Go(time.monotonic_ns()))

    def _admit(
        self, node: str, incarnation: int, config: NodeConfig, spec: ResolvedNode | None
    ) -> NodeConnection | None:
        connection = self._pending.pop(node)
        connection.incarnation = incarnation
        self._connections.add(node, connection)
        try:
            if spec is not None:
                self._router.create_inputs(spec)
            self.free_area(node)
            self._areas[node] = self._registry.board.allocate_node()
        except (QueueUnavailable, BoardFull) as error:
            connection.send(Refused(str(error)))
            self._warn(str(error))
            return None
        board = self._registry.board
        queues = self._registry.into(node)
        descriptors = [board.fd]
        for entry in queues:
            descriptors += entry.ends.for_consumer()
        segment, segment_size = -1, 0
        if spec is not None and spec.outputs:
            with suppress(OSError):  # the node makes and registers its own
                segment, segment_size = self._segments.create(incarnation)
                descriptors.append(segment)
        welcome = Welcome(
            incarnation=incarnation,
            config=config,
            queues=tuple(entry.spec for entry in queues),
            board_size=board.size,
            node_area=self._areas[node],
            segment_size=segment_size,
        )
        connection.send(welcome, descriptors)
        if segment >= 0:
            os.close(segment)
        self._states.restore(node, connection)
        for entry in self._registry.written_by(node):
            send_route(connection, entry)
        return connection

    def refuse(self, node: str, message: str, *, cancelled: bool) -> None:
        """Refuse a process that sent Hello, or that waits at the start barrier."""
        connection = self._pending.pop(node, None) or self._connections.get(node)
        if connection is not None:
            connection.send(Refused(message, cancelled))

    def release(self, nodes: tuple[str, ...]) -> None:
        """Release nodes from the start barrier, those that read from others first."""
        sources = {node: self._sources(node) for node in nodes}
        for node, incarnations in sources.items():
            if (connection := self._connections.get(node)) is not None:
                self._segments.send_first(connection, incarnations)
        now = time.monotonic_ns()
        for node in sorted(nodes, key=lambda node: not sources[node]):
            if self._connections.send(node, Go(now)):
                # the wait at the barrier does not count for the health check
                self._connections.connected_at[node] = now / 1e9

    def _sources(self, node: str) -> set[int]:
        """Return the incarnations of the processes that a node reads from."""
        writers = {entry.writer for entry in self._registry.into(node)} - {node}
        found = (self._connections.get(writer) for writer in writers)
        return {one.incarnation for one in found if one is not None and one.incarnation is not None}

    def free_area(self, node: str) -> None:
        """Free the area of a node on the status board."""
        area = self._areas.pop(node, None)
        if area is not None:
            self._registry.board.free_node(area)

    def send_stop(self, node: str) -> None:
        """Send STOP to a node."""
        self._connections.send(node, StopNode())
