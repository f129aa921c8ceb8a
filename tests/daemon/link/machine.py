"""A machine for tests of the link: a runner's queues and sockets with real link processes.

Nodes are senders and receivers in the test's process, at the ends of real queues.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from support.waiting import PATIENCE, wait_until

from dora_config.dataflow.compression import Compression
from dora_config.protocol.links import PeerEndpoint, PeerReport
from dora_daemon.link import LINK_NODE
from dora_daemon.link.protocol.messages import (
    Configure,
    Finish,
    Finished,
    IncomingStream,
    LineBuffer,
    Listening,
    Outgoing,
    PeerChanged,
    SetIncoming,
    SetOutgoing,
    SetPeers,
    SourceEvent,
    StreamCounts,
    ToLink,
    ToRunner,
    decode_for_runner,
    encode,
)
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.nodes.local_nodes import LocalNodes
from dora_daemon.runner.nodes.queues import QueueEntry, QueueRegistry
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_node_api.errors import ControlClosed
from dora_node_api.protocol.control_socket import ControlSocket, bind_unix
from dora_node_api.protocol.frames import close_all
from dora_node_api.protocol.messages import (
    AddRoute,
    AddSegment,
    Hello,
    NodeConfig,
    OpenSegment,
    SegmentFd,
    SegmentUnknown,
    Welcome,
)
from dora_node_api.queue_policy import QueuePolicy
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.consumer.waiting import Waiter
from dora_node_api.transport.producer.pool import Pool
from dora_node_api.transport.producer.sending import Sender
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.queue import QueueEnds

M = TypeVar("M")
_PROGRAM = """
from dora_config.protocol import links
links.LINK_VERSION = {version}
from dora_daemon import _version
_version.__version__ = "9.9"
from runpy import run_module
run_module("dora_daemon.link", run_name="__main__")
"""


def dup(descriptors: list[int]) -> list[int]:
    return [os.dup(descriptor) for descriptor in descriptors]


class Machine:
    """One machine's part of a dataflow: its queues and one link process at a time."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        credentials: Path | None = None,
        host: str = "127.0.0.1",
        ports: tuple[int, int] = (7450, 7549),
        prefix: tuple[str, ...] = (),
        pool: int | None = None,
        window_bytes: int = 32 << 20,
        plain: bool = False,
        version: tuple[int, int] | None = None,
    ) -> None:
        """``version``: of the link's protocol, if not the present one."""
        self.name = name
        self.run_id = f"{name}-1"
        self.segments = SegmentTable(LocalNodes())
        self.registry = QueueRegistry(Board.create(), self.segments)
        self.received: list[ToRunner] = []
        self.endpoints: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None
        self._credentials = None if plain else credentials
        self._host = host
        self._ports = ports
        self._prefix = prefix
        self._pool = pool
        self._program = ["-m", "dora_daemon.link"]
        if version is not None:
            self._program = ["-c", _PROGRAM.format(version=version)]
        self._window_bytes = window_bytes
        self.plain = plain
        self.names_known = True
        """Whether the link starts with the names in the certificates of its peers."""
        self._port: int | None = None
        self._producers = 0
        self._incarnation = 100
        self._outgoing: list[tuple[Outgoing, QueueEntry]] = []
        self._incoming: dict[tuple[str, str, str], list[QueueEntry]] = {}
        self._peers: tuple[PeerEndpoint, ...] = ()
        self._opened: list[Any] = []
        self._lock = threading.Lock()
        self._path = folder / f"{name}.sock"
        self._listener = bind_unix(self._path)
        self._carrier: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    # --- the dataflow -----------------------------------------------------------------------------

    def outgoing(
        self,
        source: str,
        to: str,
        *,
        policy: str = "drop_oldest",
        bound: int = 10,
        compress: Compression | None = None,
    ) -> QueueEntry:
        """Add a stream that leaves; ``source`` is ``node/output``."""
        node, _, output = source.partition("/")
        edge = Edge(node, output, LINK_NODE, f"{to} {source}")
        kept, _ = self.registry.ensure(edge, bound=bound, policy=QueuePolicy(policy), journal=True)
        stream = Outgoing(
            machine=to, node=node, output=output, queue=kept.spec.queue, compress=compress
        )
        self._outgoing.append((stream, kept))
        return kept

    def incoming(
        self,
        source: str,
        origin: str,
        consumer: str,
        *,
        policy: str = "drop_oldest",
        bound: int = 10,
    ) -> QueueEntry:
        """Add a local consumer (``node/input``) of a stream that enters."""
        node, _, output = source.partition("/")
        target, _, name = consumer.partition("/")
        edge = Edge(node, output, target, name)
        kept, _ = self.registry.ensure(edge, bound=bound, policy=QueuePolicy(policy))
        self._incoming.setdefault((origin, node, output), []).append(kept)
        return kept

    def sender(self, *outputs: QueueEntry, pool: int = 1 << 30) -> Sender:
        """Return a producing node with routes to these queues."""
        self._producers += 1
        incarnation = self._producers

        def register(number: int, descriptor: int, size: int) -> None:
            self.segments.add(incarnation, number, os.dup(descriptor), size)

        sender = Sender(Pool(pool, register), self.registry.board, incarnation)
        for kept in outputs:
            ends = QueueEnds.from_producer_fds(dup(kept.ends.for_producer()))
            sender.add_route(kept.edge.output, kept.spec, ends)
        self._opened.append(sender)
        return sender

    def receiver(self, kept: QueueEntry) -> Receiver:
        """Return a consuming node's end of a queue."""
        ends = QueueEnds.from_consumer_fds(dup(kept.ends.for_consumer()))
        receiver = Receiver(kept.spec, ends, self.registry.board, self._open_segment)
        self._opened.append(receiver)
        return receiver

    def _open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        # The owner registered it before it sent the message; the thread may not have read that yet.
        found = wait_until(
            lambda: self.segments.find(incarnation, number), what=f"segment {number}"
        )
        assert found is not None
        return os.dup(found[0]), found[1]

    # --- the link ---------------------------------------------------------------------------------

    def start_link(self, *, seconds: float = 20.0) -> None:
        """Start the link process, send it all lists, and wait until it listens."""
        self._incarnation += 1
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [
                *self._prefix, sys.executable, *self._program,
                str(self._path), str(self._incarnation), str(theirs.fileno()),
            ],
            pass_fds=(theirs.fileno(),),
        )  # fmt: skip
        theirs.close()
        self._carrier = ours
        before = len(self.received)
        self.send(
            Configure(
                dataflow_id="0198-flow", network="test", machine=self.name, run_id=self.run_id,
                listen_host=self._host, first_port=self._ports[0], last_port=self._ports[1],
                port=self._port, credentials=str(self._credentials) if self._credentials else None,
                window_bytes=self._window_bytes, plain=self.plain, names=self._names(),
            )
        )  # fmt: skip
        connection = _accept(self._listener, seconds)
        control = ControlSocket(connection)
        self._welcome(control)
        for target, arguments in ((self._serve, (control,)), (self._listen, (ours,))):
            thread = threading.Thread(target=target, args=arguments, daemon=True)
            thread.start()
            self._threads.append(thread)
        self.send_lists()
        listening = wait_until(
            lambda: next((m for m in self.received[before:] if isinstance(m, Listening)), None),
            timeout=seconds,
            what="the link to listen",
        )
        assert isinstance(listening, Listening)
        self.endpoints = listening.endpoints
        self._port = int(self.endpoints[0].rpartition(":")[2])

    def _names(self) -> dict[str, str]:
        """Return the peers of the streams; tests name certificates as machines."""
        peers = {stream.machine for stream, _ in self._outgoing}
        peers |= {origin for origin, _, _ in self._incoming}
        return {peer: peer if self.names_known else "" for peer in peers}

    def _welcome(self, control: ControlSocket) -> None:
        hello = control.receive(timeout=60)
        assert hello is not None
        assert isinstance(hello.message, Hello)
        assert hello.message.node_id == LINK_NODE
        queues = self.registry.into(LINK_NODE)
        descriptors = [self.registry.board.fd]
        for kept in queues:
            descriptors += kept.ends.for_consumer()
        config = NodeConfig("0198-flow", LINK_NODE, pool_size=self._pool)
        control.send(
            Welcome(
                self._incarnation, config, tuple(kept.spec for kept in queues),
                self.registry.board.size,
            ),
            descriptors,
        )  # fmt: skip
        for queues in self._incoming.values():
            for kept in queues:
                route = AddRoute(f"{kept.edge.source}/{kept.edge.output}", kept.spec)
                control.send(route, kept.ends.for_producer())

    def _serve(self, control: ControlSocket) -> None:
        incarnation = self._incarnation
        with contextlib.suppress(ControlClosed, OSError):
            while True:
                received = control.receive()
                assert received is not None
                match received.message:
                    case AddSegment(number, size):
                        self.segments.add(incarnation, number, received.descriptors[0], size)
                    case OpenSegment(request, owner, number):
                        found = self.segments.find(owner, number)
                        if found is None:
                            control.send(SegmentUnknown(request))
                        else:
                            control.send(SegmentFd(request, found[1]), (found[0],))
                    case _:
                        close_all(received.descriptors)
        control.close()

    def _listen(self, carrier: socket.socket) -> None:
        lines = LineBuffer()
        with contextlib.suppress(OSError):
            while data := carrier.recv(1 << 16):
                for line in lines.feed(data):
                    self.received.append(decode_for_runner(line))
        carrier.close()

    def send(self, message: ToLink) -> None:
        """Send a message to the link; ignored if it is gone."""
        assert self._carrier is not None
        with contextlib.suppress(OSError):
            self._carrier.sendall(encode(message))

    def send_lists(self) -> None:
        """Send all lists."""
        self.send(SetOutgoing(streams=tuple(stream for stream, _ in self._outgoing)))
        self.send(
            SetIncoming(
                streams=tuple(
                    IncomingStream(
                        machine=key[0], node=key[1], output=key[2],
                        queues=tuple(kept.spec.queue for kept in queues),
                    )
                    for key, queues in self._incoming.items()
                )
            )
        )  # fmt: skip
        if self._peers:
            self.send(SetPeers(peers=self._peers))

    def meet(self, *others: Machine, endpoints: tuple[str, ...] | None = None) -> None:
        """Send the addresses of the others' links."""
        self._peers = tuple(
            PeerEndpoint(
                machine=o.name,
                run_id=o.run_id,
                endpoints=endpoints or o.endpoints,
                plain=o.plain,
                name=o.name,
            )
            for o in others
        )
        self.send(SetPeers(peers=self._peers))

    def disconnect(self) -> None:
        """Close the runner's end of the socketpair, as if the runner had died."""
        assert self._carrier is not None
        self._carrier.shutdown(socket.SHUT_RDWR)

    def kill_link(self) -> None:
        """Kill the link process and do what a runner does then."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reaped()

    def _reaped(self) -> None:
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()
        # Its segments stay until the end of the test: queues may refer to them.
        self.registry.consumer_died(LINK_NODE)

    def finish(self, seconds: float = 10.0) -> Finished:
        """Send Finish and wait for the end of the link."""
        self.send(Finish(seconds=seconds))
        finished = self.wait_for(Finished, timeout=seconds + 5)
        assert self.process is not None
        assert self.process.wait(10) == 0
        self._reaped()
        return finished

    # --- messages of the link ---------------------------------------------------------------------

    def wait_for(self, kind: type[M], timeout: float = PATIENCE, **fields: object) -> M:
        """Wait for a message of this kind with these fields; return the last one."""

        def look() -> Any:
            for message in reversed(self.received):
                if isinstance(message, kind) and all(
                    getattr(message, name) == value for name, value in fields.items()
                ):
                    return message
            return None

        return wait_until(  # type: ignore[no-any-return]
            look,
            timeout=timeout,
            what=lambda: f"{self.name}: {kind.__name__} {fields}, received {self.received[-6:]}",
        )

    def state_of(self, machine: str) -> str:
        """Return the peer's state in the last report."""
        for message in reversed(self.received):
            if isinstance(message, PeerChanged) and message.peer.machine == machine:
                return message.peer.state
        return ""

    def wait_for_peer(self, **fields: object) -> PeerReport:
        """Wait for a report of a peer with these fields; return the last one."""

        def look() -> PeerReport | None:
            reports = (m.peer for m in reversed(self.received) if isinstance(m, PeerChanged))
            return next(
                (r for r in reports if all(getattr(r, k) == v for k, v in fields.items())), None
            )

        what = f"{self.name}: a peer {fields}"
        found = wait_until(look, what=lambda: f"{what}, received {self.received[-6:]}")
        assert found is not None
        return found

    def events(self) -> list[tuple[str, str]]:
        """Return the lifecycle events of sources so far: output and event."""
        return [
            (f"{m.node}/{m.output}", m.event) for m in self.received if isinstance(m, SourceEvent)
        ]

    def count(self, source: str, field: str) -> int:
        """Return a stream's counter in the last report."""
        for message in reversed(self.received):
            if isinstance(message, StreamCounts):
                for count in message.streams:
                    if f"{count.node}/{count.output}" == source:
                        return int(getattr(count, field))
        return 0

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(5)
        for opened in self._opened:
            opened.close()
        self._opened.clear()
        self._listener.close()
        self._outgoing.clear()
        self._incoming.clear()
        self.registry.close()
        self.segments.close()


def _accept(listener: socket.socket, seconds: float) -> socket.socket:
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    assert poll.poll(seconds * 1000), "the link did not connect to the node socket"
    return listener.accept()[0]


def introduce(*machines: Machine) -> None:
    """Start every link and send each the addresses of all others."""
    for machine in machines:
        machine.start_link()
    for machine in machines:
        machine.meet(*(other for other in machines if other is not machine))


def connected(*machines: Machine, timeout: float = PATIENCE) -> None:
    """Wait until every link reports all others as connected."""
    for machine in machines:
        for other in machines:
            if other is not machine:
                wait_until(
                    lambda m=machine, o=other: m.state_of(o.name) == "connected",  # type: ignore[misc]
                    timeout=timeout,
                    what=lambda m=machine: f"{m.name}: {m.received[-6:]}",  # type: ignore[misc]
                )


def connected_stream(
    make: Callable[..., Machine], **queues: Any
) -> tuple[Machine, Machine, QueueEntry, QueueEntry]:
    """Machines a and b with a connected link, and both ends of the stream n/o from a to b."""
    a, b = make("a"), make("b")
    out = a.outgoing("n/o", "b", **queues)
    into = b.incoming("n/o", "a", "m/i", **queues)
    introduce(a, b)
    connected(a, b)
    return a, b, out, into


def deliveries(receiver: Receiver, *, seconds: float = 20.0) -> Iterator[Any]:
    """Yield deliveries until none comes for ``seconds``."""
    waiter = Waiter()
    waiter.add(receiver)
    try:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            delivery = receiver.receive()
            if delivery is None:
                waiter.wait(left)
                continue
            yield delivery
            end = time.monotonic() + seconds
    finally:
        waiter.close()
