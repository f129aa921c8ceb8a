"""A runner for tests of the node API: wires nodes and sends the messages of a test.

It serves the control protocol on a real Unix socket in a thread of the test process, with real
queues. It starts no process and decides nothing.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.waiting import wait_until

from dora_node_api.errors import ControlError
from dora_node_api.frozen import replace
from dora_node_api.protocol import frames, messages as control
from dora_node_api.protocol.control_socket import ControlSocket, bind_unix
from dora_node_api.protocol.launch_config import LaunchConfig
from dora_node_api.protocol.messages import Hello, InputConfig, Message, NodeConfig
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import create_queue
from dora_node_api.transport.shared.queue_keeper import QueueKeeper
from dora_node_api.transport.shared.specs import QueueSpec

DATAFLOW_ID = "01a20e4b-f5a3-7858-99fe-d510d04b9561"


@dataclass
class FakeNode:
    """State of one node."""

    config: NodeConfig
    incarnation: int
    control: ControlSocket | None = None
    hello: Hello | None = None
    received: list[Message] = field(default_factory=list)
    left: bool = False


@dataclass
class Edge:
    """A queue and its output."""

    output: str
    spec: QueueSpec
    keeper: QueueKeeper


class FakeRunner:
    """Nodes are added and wired first, then connect; `go` opens the start barrier."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "n"
        self.board = Board.create(8 * 1024 * 1024)
        self.nodes: dict[str, FakeNode] = {}
        self.edges: list[Edge] = []
        self.segments: dict[tuple[int, int], tuple[int, int]] = {}
        self.auto_go = True
        self.refusal: control.Refused | None = None
        """Answer to every Hello."""
        self.epoch: int | None = None
        self._queues = 0
        self._listener = bind_unix(self.path)
        self._stop_read, self._stop_write = os.pipe()
        self._connections: dict[int, tuple[ControlSocket, FakeNode | None]] = {}
        self._lock = threading.RLock()
        self._thread = threading.Thread(target=self._serve, name="fake runner")
        self._thread.start()

    # --- wiring ----------------------------------------------------------------------------------

    def add_node(self, node_id: str, **config: object) -> FakeNode:
        """A node with these fields of NodeConfig."""
        values = NodeConfig(dataflow_id=DATAFLOW_ID, node_id=node_id)
        node = FakeNode(replace(values, **config), len(self.nodes) + 1)
        self.nodes[node_id] = node
        return node

    def connect(self, source: str, target: str, **options: object) -> Edge:
        """An edge `node/output` -> `node/input`; options are those of an input.

        Adds nodes that do not exist yet.
        """
        producer, _, output = source.partition("/")
        consumer, _, name = target.partition("/")
        entry = InputConfig(id=name, source=source, source_node=producer)
        entry = replace(entry, **options)
        self._queues += 1
        area, slots = self.board.allocate_edge(entry.queue_size)
        spec = QueueSpec(
            queue=self._queues,
            producer=producer,
            output=output,
            consumer=consumer,
            input=name,
            policy=QueuePolicy(entry.queue_policy),
            bound=entry.queue_size,
            area=area,
            ledger_slots=slots,
        )
        edge = Edge(output, spec, QueueKeeper(self.board, spec, create_queue(spec)))
        with self._lock:
            self.edges.append(edge)
            sender = self.nodes.get(producer) or self.add_node(producer)
            reader = self.nodes.get(consumer) or self.add_node(consumer)
            self._add_input(reader, entry)
            self._declare(sender, output)
            if sender.control is not None:
                self._send_route(sender.control, edge)
            if reader.control is not None:
                message = control.AddInput(entry, spec)
                reader.control.send(message, edge.keeper.ends.for_consumer())
        return edge

    def add_timer(self, node_id: str, name: str, interval: float, **options: object) -> None:
        """A timer input that ticks every `interval` seconds."""
        entry = InputConfig(
            id=name,
            source=f"dora/timer/nanos/{int(interval * 1e9)}",
            source_kind="timer",
            interval_ns=int(interval * 1e9),
        )
        self._add_input(self.nodes[node_id], replace(entry, **options))

    def _declare(self, node: FakeNode, output: str) -> None:
        if output not in node.config.outputs:
            node.config = replace(node.config, outputs=(*node.config.outputs, output))

    def _add_input(self, node: FakeNode, entry: InputConfig) -> None:
        others = tuple(known for known in node.config.inputs if known.id != entry.id)
        node.config = replace(node.config, inputs=(*others, entry))

    def environment(self, node_id: str) -> dict[str, str]:
        """DORA_NODE_CONFIG of a node."""
        node = self.nodes[node_id]
        config = LaunchConfig(
            socket=str(self.path),
            node_id=node_id,
            incarnation=node.incarnation,
            receives_arrays=any(entry.source_kind != "timer" for entry in node.config.inputs),
            operators=node.config.operators,
        )
        return {"DORA_NODE_CONFIG": config.to_text()}

    # --- messages ---------------------------------------------------------------------------------

    def send(self, node_id: str, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message to a connected node."""
        connection = self.nodes[node_id].control
        assert connection is not None
        connection.send(message, descriptors)

    def send_bytes(self, node_id: str, data: bytes) -> None:
        """Send a connected node bytes that may be garbage."""
        connection = self.nodes[node_id].control
        assert connection is not None
        connection._connection.sendall(data)

    def disconnect(self, node_id: str) -> None:
        """Close the connection, as if the runner had died."""
        connection = self.nodes[node_id].control
        assert connection is not None
        # Only close: the serving thread polls it, which would keep it open.
        connection._connection.shutdown(socket.SHUT_RDWR)

    def go(self) -> None:
        """Open the start barrier."""
        with self._lock:
            self.auto_go = True
            self.epoch = time.monotonic_ns()
            for node in self.nodes.values():
                if node.control is not None:
                    node.control.send(control.Go(self.epoch))

    def wait_connected(self, *node_ids: str) -> None:
        """Wait until these nodes have sent Hello."""
        wait_until(
            lambda: all(self.nodes[name].hello is not None for name in node_ids),
            what=f"Hello of {node_ids}",
        )

    def messages(self, node_id: str, kind: type[Message]) -> list[Message]:
        """Return the messages of this kind that the node has sent."""
        with self._lock:
            return [m for m in self.nodes[node_id].received if isinstance(m, kind)]

    def wait_for(self, node_id: str, kind: type[Message]) -> Message:
        """Wait until the node has sent a message of this kind."""
        wait_until(lambda: bool(self.messages(node_id, kind)), what=kind.__name__)
        return self.messages(node_id, kind)[-1]

    # --- serving ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            poll = select.poll()
            poll.register(self._stop_read, select.POLLIN)
            poll.register(self._listener, select.POLLIN)
            for descriptor in list(self._connections):
                poll.register(descriptor, select.POLLIN)
            for descriptor, _ in poll.poll():
                with self._lock:
                    if descriptor == self._stop_read:
                        return
                    if descriptor == self._listener.fileno():
                        connection = ControlSocket(self._listener.accept()[0])
                        self._connections[connection.fileno()] = (connection, None)
                    elif descriptor in self._connections:
                        self._serve_connection(descriptor)

    def _serve_connection(self, descriptor: int) -> None:
        connection, node = self._connections[descriptor]
        try:
            while (received := connection.receive(timeout=0)) is not None:
                node = self._handle(connection, node, received)
                self._connections[descriptor] = (connection, node)
        except ControlError:
            self._forget(connection)

    def _forget(self, connection: ControlSocket) -> None:
        _, node = self._connections.pop(connection.fileno(), (connection, None))
        connection.close()
        if node is not None:
            node.control = None

    def _handle(
        self, connection: ControlSocket, node: FakeNode | None, received: frames.ReceivedFrame
    ) -> FakeNode | None:
        match received.message:
            case Hello(node_id) as hello:
                node = self._greet(connection, node_id, hello)
            case control.AddSegment(number, size):
                assert node is not None
                self.segments[node.incarnation, number] = (received.descriptors[0], size)
            case control.OpenSegment(request, incarnation, number):
                if (incarnation, number) not in self.segments:
                    self._read_all(connection)
                known = self.segments.get((incarnation, number))
                if known is None:
                    connection.send(control.SegmentUnknown(request))
                else:
                    connection.send(control.SegmentFd(request, known[1]), [known[0]])
            case control.NodeLeaving():
                assert node is not None
                node.left = True
        if node is not None:
            node.received.append(received.message)
        return node

    def _read_all(self, skipped: ControlSocket) -> None:
        """Process the messages of the other nodes."""
        for descriptor, (connection, _) in list(self._connections.items()):
            if connection is not skipped:
                self._serve_connection(descriptor)

    def _greet(self, connection: ControlSocket, node_id: str, hello: Hello) -> FakeNode | None:
        node = self.nodes.get(node_id)
        if node is None or self.refusal is not None:
            missing = control.Refused(f"node `{node_id}` does not exist")
            connection.send(self.refusal or missing)
            return None
        own = [edge for edge in self.edges if edge.spec.consumer == node_id]
        descriptors = [self.board.fd]
        for edge in own:
            descriptors += edge.keeper.ends.for_consumer()
        connection.send(
            control.Welcome(
                incarnation=node.incarnation,
                config=node.config,
                queues=tuple(edge.spec for edge in own),
                board_size=self.board.size,
            ),
            descriptors,
        )
        for edge in self.edges:
            if edge.spec.producer == node_id:
                self._send_route(connection, edge)
        node.control = connection
        node.hello = hello
        if self.auto_go:
            self.epoch = self.epoch or time.monotonic_ns()
            connection.send(control.Go(self.epoch))
        return node

    def _send_route(self, connection: ControlSocket, edge: Edge) -> None:
        message = control.AddRoute(edge.output, edge.spec)
        connection.send(message, edge.keeper.ends.for_producer())

    def close(self) -> None:
        """End the thread and close everything."""
        os.write(self._stop_write, b"x")
        self._thread.join()
        for connection, _ in list(self._connections.values()):
            connection.close()
        self._listener.close()
        for descriptor in (self._stop_read, self._stop_write):
            os.close(descriptor)
        for descriptor, _ in self.segments.values():
            os.close(descriptor)
        for edge in self.edges:
            edge.keeper.close()
        self.board.close()
        # The mapping goes with the last reference; a test's fixtures live on for a while.
        self.edges.clear()
        del self.board
        with suppress(FileNotFoundError):
            self.path.unlink()


@contextmanager
def fake_runner(directory: Path) -> Iterator[FakeRunner]:
    """A runner whose socket lies in `directory`."""
    runner = FakeRunner(directory)
    try:
        yield runner
    finally:
        runner.close()
