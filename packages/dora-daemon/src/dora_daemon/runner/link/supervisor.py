"""Runs the link process: spawns it, sends it streams and peers, reports its state."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from dora_config.dataflow.sources import LogLevel
from dora_config.dataflow.variables import is_private
from dora_config.history.entries import LinkPeerChanged
from dora_config.protocol.links import LinkPlan, LinkReport, PeerEndpoint, PeerReport
from dora_config.protocol.runner import EdgeStatus
from dora_config.protocol.runner_events import LogLine
from dora_config.spawn_argv import run_module
from dora_daemon.link import LINK_NODE
from dora_daemon.link.protocol import messages
from dora_daemon.link.protocol.messages import (
    IncomingStream,
    LineBuffer,
    Outgoing,
    SetIncoming,
    SetOutgoing,
    ToLink,
    ToRunner,
    decode_for_runner,
    encode,
)
from dora_daemon.runner.errors import QueueUnavailable
from dora_daemon.runner.link.view import LinkView
from dora_daemon.runner.logs.logs import Stream, now_text
from dora_daemon.runner.machine import events
from dora_daemon.runner.machine.edges import Edge
from dora_daemon.runner.machine.streams import LOG_LINES, MachineStreams, streams_of
from dora_daemon.runner.nodes.processes import Processes
from dora_daemon.runner.nodes.queues import QueueEntry, duplicate
from dora_daemon.runner.nodes.segments import SegmentTable
from dora_daemon.runner.nodes.services import NodeServices
from dora_daemon.runner.process.spawn import NodeProcess
from dora_node_api.protocol.spawn_request import SpawnRequest
from dora_node_api.transport.consumer.receiving import Receiver
from dora_node_api.transport.shared.board import Board
from dora_node_api.transport.shared.errors import TransportError
from dora_node_api.transport.shared.layout import RecordKind
from dora_node_api.transport.shared.queue import QueueEnds

PROGRAM = run_module("dora_daemon.link")
TARGET = "dora.link"
"""``target`` of the link's log lines."""
_LINES_PER_TURN = 200
"""Log lines that are forwarded before other events are handled."""
_CHUNK = 65536
"""Bytes that are received at a time."""


class RunnerChannel:
    """Messages to and from one link process; data that the socket does not accept is queued."""

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[ToRunner], None],
        warn: Callable[[str], None],
        *,
        on_broken: Callable[[], None],
    ) -> None:
        """``on_broken`` is called after a malformed message; it must kill the process."""
        sock.setblocking(False)
        self._socket = sock
        self._on_message = on_message
        self._warn = warn
        self._on_broken = on_broken
        self._broken = False
        self._lines = LineBuffer()
        self._waiting = bytearray()
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    def send(self, message: ToLink) -> None:
        """Send a message; do nothing if the link has ended, which is detected elsewhere."""
        if not self._open:
            return
        if not self._waiting:
            self._loop.add_writer(self._socket, self._writable)
        self._waiting += encode(message)
        self._writable()

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._waiting)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._waiting)
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        """Process received messages; stop reading at the end of the stream."""
        with suppress(BlockingIOError, InterruptedError):
            if not self._read():
                self._loop.remove_reader(self._socket)

    def _read(self) -> bool:
        """Process received messages; return False at the end. Raises BlockingIOError."""
        if self._broken:
            return False
        try:
            data = self._socket.recv(_CHUNK)
        except ConnectionError:
            return False
        try:
            messages = [decode_for_runner(line) for line in self._lines.feed(data)]
        except ValueError as error:
            self._broken = True
            self._warn(f"restarting the link: malformed message: {error}")
            self._on_broken()
            return False
        for message in messages:
            self._on_message(message)
        return bool(data)

    def read_rest(self) -> None:
        """Process the messages that the link sent before its process ended."""
        with suppress(BlockingIOError):
            while self._open and self._read():
                pass

    def close(self) -> None:
        """Close the socket, which ends a running link. May be called twice."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()


class LogStreamReader:
    """Reader of one stream of log lines."""

    def __init__(
        self,
        board: Board,
        entry: QueueEntry,
        segments: SegmentTable,
        on_line: Callable[[str], None],
    ) -> None:
        """``on_line`` gets each line as the text that readers of ``dora/logs`` receive.

        Raises OSError.
        """
        self._segments = segments
        self._on_line = on_line
        ends = QueueEnds.from_consumer_fds(duplicate(entry.ends.for_consumer()))
        self._receiver = Receiver(entry.spec, ends, board, self._open_segment, validate=True)
        self._descriptors = self._receiver.fds()
        self._loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            self._loop.add_reader(descriptor, self._readable)

    def _open_segment(self, incarnation: int, number: int) -> tuple[int, int]:
        segment = self._segments.find(incarnation, number)
        if segment is None:
            raise LookupError(f"segment {number} of incarnation {incarnation} does not exist")
        return os.dup(segment[0]), segment[1]

    def _readable(self) -> None:
        self._receiver.woken()
        for _ in range(_LINES_PER_TURN):
            try:
                delivery = self._receiver.receive()
                if delivery is None:
                    return
                if delivery.kind is RecordKind.DATA:
                    self._on_line(str(delivery.value[0].as_py()))
            except (TransportError, ValueError, TypeError, LookupError):
                continue  # counted by the receiver

    def close(self) -> None:
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        self._receiver.close()


class StreamQueues:
    """Queues of the link, created and dropped according to its plan."""

    def __init__(self, services: NodeServices) -> None:
        self._registry = services.registry
        self._router = services.router
        self._segments = services.segments
        self._logs = services.logs
        self._log_readers: dict[Edge, LogStreamReader] = {}
        self._readers_of_logs: dict[Edge, tuple[tuple[str, str], ...]] = {}
        """Node and input of each reader of a stream of log lines; a new plan may change them."""
        self.streams = MachineStreams()

    def set_plan(self, plan: LinkPlan, on_change: Callable[[], None]) -> None:
        """Set the streams; call this before queues of nodes are created, and ``apply`` after."""
        self.streams = streams_of(plan)
        self._router.set_remote_nodes(self.streams.remote_nodes, on_change)

    def apply(self, ended: set[str]) -> tuple[Edge, ...]:
        """Create and drop queues; return the edges of outgoing streams. Raises QueueUnavailable.

        ``ended``: machines whose part of the dataflow has ended permanently.
        """
        wanted = [stream for stream in self.streams.outgoing if stream.machine not in ended]
        for entry in self._registry.into(LINK_NODE):
            stream = self.streams.outgoing_at(entry.edge)
            if stream not in wanted or (stream.backpressure and not entry.spec.backpressure):
                self._router.drop_outgoing(entry)
        for stream in wanted:
            self._router.create_outgoing(stream)
        self._read_logs()
        for entry in self._registry.all():
            if entry.edge.source in self.streams.remote_nodes and entry.writer != LINK_NODE:
                # the source of this edge was added on another machine
                entry.writer = LINK_NODE
                self._router.route(entry)
        return tuple(stream.edge for stream in wanted)

    def _read_logs(self) -> None:
        wanted = {s.log_edge: s.readers for s in self.streams.incoming if s.logs}
        self._readers_of_logs = wanted
        for edge in [edge for edge in self._log_readers if edge not in wanted]:
            self._log_readers.pop(edge).close()
            if (entry := self._registry.get(edge)) is not None:
                self._router.drop(entry)
        for edge in [edge for edge in wanted if edge not in self._log_readers]:
            entry, _ = self._registry.ensure(edge, bound=LOG_LINES, writer=LINK_NODE)
            self._router.route(entry)
            forward = partial(self._forward, edge)
            board = self._registry.board
            try:
                self._log_readers[edge] = LogStreamReader(board, entry, self._segments, forward)
            except OSError as error:
                self._router.drop(entry)
                raise QueueUnavailable(f"cannot read edge {edge}: {error}") from error

    def _forward(self, edge: Edge, text: str) -> None:
        self._logs.forward(self._readers_of_logs[edge], text)

    def outgoing(self) -> SetOutgoing:
        """Return the message with all streams that leave this machine."""
        found = []
        for stream in self.streams.outgoing:
            entry = self._registry.get(stream.edge)
            if entry is not None:
                found.append(
                    Outgoing(
                        machine=stream.machine,
                        node=stream.node,
                        output=stream.output,
                        queue=entry.spec.queue,
                        compress=stream.compress,
                    )
                )
        return SetOutgoing(streams=tuple(found))

    def incoming(self) -> SetIncoming:
        """Return the message with all streams that enter this machine."""
        queues: dict[tuple[str, str], list[int]] = {}
        for entry in self._registry.written_by(LINK_NODE):
            edge = entry.edge
            queues.setdefault((edge.source, edge.output), []).append(entry.spec.queue)
        found = [
            (one, tuple(queues.get((one.node, one.output), ()))) for one in self.streams.incoming
        ]
        return SetIncoming(
            streams=tuple(
                IncomingStream(machine=s.machine, node=s.node, output=s.output, queues=numbers)
                for s, numbers in found
            )
        )

    def status(self, entry: QueueEntry, view: LinkView) -> EdgeStatus:
        """Return the counters of a queue; for an edge between machines with the link's counters."""
        status, edge = entry.status(), entry.edge
        machine = self.streams.sources.get((edge.source, edge.output))
        if (stream := self.streams.outgoing_at(edge)) is not None:
            crossing = view.crossing(stream.machine, stream.node, stream.output, "out")
        elif entry.writer == LINK_NODE and machine is not None:
            crossing = view.crossing(machine, edge.source, edge.output, "in")
        else:
            return status
        return status.model_copy(update={"crossing": crossing})

    def close(self) -> None:
        for reader in self._log_readers.values():
            reader.close()
        self._log_readers.clear()


class LinkSupervisor:
    """The link of one runner; it has one process after another."""

    def __init__(
        self,
        plan: LinkPlan,
        credentials: str | None,
        services: NodeServices,
        processes: Processes,
    ) -> None:
        self._services = services
        self._queues = StreamQueues(services)
        self._registry = services.registry
        self._sessions = services.sessions
        self._participant = services.nodes.link
        self._emit, self._notify = services.dispatcher.emit, services.dispatcher.notify
        self._log = services.logs.log
        self._history = services.logs.history
        self._processes = processes
        self._loop = asyncio.get_running_loop()
        self._view = LinkView()
        self._peers: dict[str, PeerEndpoint] = {}
        self._ended: set[str] = set()
        """Machines whose part of the dataflow has ended permanently."""
        self._running: NodeProcess | None = None
        self._channel: RunnerChannel | None = None
        """Channel to the running process."""
        self._finishing = False
        """Whether the link was ordered to deliver queued messages and end."""
        self._tail: deque[str] = deque(maxlen=5)
        """Last lines on stderr."""
        self._fed: frozenset[int] = frozenset()
        """Queues that lose no message of another machine."""
        self._sent: dict[type[messages.ToLink], messages.ToLink] = {}
        self._syncing = False
        self.set_plan(plan, credentials)

    def set_plan(self, plan: LinkPlan, credentials: str | None) -> None:
        """Set the streams; call this before queues of nodes are created, and ``apply`` after."""
        self._plan = plan
        self._credentials = credentials
        self._view.run_id = plan.run_id
        self._view.expected = plan.peers
        self._queues.set_plan(plan, self._sync_soon)

    def apply(self) -> None:
        """Create and drop queues as planned. Raises QueueUnavailable."""
        self._emit(events.OutgoingStreamsSet(self._queues.apply(self._ended)))
        self._sync_soon()

    def set_peers(self, peers: Iterable[PeerEndpoint], ended: Iterable[str]) -> None:
        """Update where other links listen, and which have ended. Raises QueueUnavailable."""
        before = set(self._ended)
        for peer in peers:
            self._peers[peer.machine] = peer
            self._ended.discard(peer.machine)
        for machine in ended:
            self._peers.pop(machine, None)
            self._ended.add(machine)
        if self._ended != before:
            self.apply()
        self._sync_soon()

    def close_lost_sources(self) -> None:
        """Close the inputs whose machine has ended, before a link is admitted.

        A running link announces that itself; a new one does not write into their queues.
        """
        for stream in self._queues.streams.incoming:
            if stream.machine in self._ended:
                self._emit(events.SourceLost(stream.node, stream.output))

    def has_source(self, node: str, output: str) -> bool:
        """Return whether an output of another machine is received here."""
        return (node, output) in self._queues.streams.sources

    def feeds(self, node: str) -> bool:
        """Return whether the inputs of a node from other machines lose no message from now on."""
        return all(
            entry.spec.queue in self._fed
            for entry in self._registry.into(node)
            if entry.writer == LINK_NODE
        )

    def _sync_soon(self) -> None:
        if not self._syncing:
            self._syncing = True
            self._loop.call_soon(self._sync)

    def _sync(self) -> None:
        """Send the complete lists that have changed."""
        self._syncing = False
        if self._channel is None:
            return
        peers = messages.SetPeers(peers=tuple(self._peers.values()))
        for message in (self._queues.outgoing(), self._queues.incoming(), peers):
            if self._sent.get(type(message)) != message:
                self._sent[type(message)] = message
                self._channel.send(message)

    def spawn(self, incarnation: int) -> None:
        """Start a link process and emit LinkSpawned, or LinkExited with the error."""
        try:
            running, runner_end = self._start(incarnation)
        except OSError as error:
            exited = events.LinkExited(
                incarnation, events.Exit(), drained=self._is_drained(), error=str(error)
            )
            self._emit(exited)
            return
        self._tail.clear()
        self._running, self._finishing = running, False
        self._channel = RunnerChannel(
            runner_end,
            self._received,
            lambda text: self._emit_log("warn", text),
            on_broken=lambda: self.signal("SIGKILL"),
        )
        self._channel.send(self._configure())
        self._sent.clear()
        self._sync_soon()
        self._processes.watch(running, self._exited)
        self._emit(events.LinkSpawned(incarnation))

    def _start(self, incarnation: int) -> tuple[NodeProcess, socket.socket]:
        """Return a link process, and this end of the socket that it inherits. Raises OSError."""
        runner_end, link_end = socket.socketpair()
        with link_end:
            node_socket, carrier = str(self._services.socket), link_end.fileno()
            argv = (*PROGRAM, node_socket, str(incarnation), str(carrier))
            env = {k: v for k, v in os.environ.items() if not is_private(k)}
            request = SpawnRequest(argv, "/", env, inherited=(carrier,))

            def run() -> int:
                # imported in the fork: the runner must not import Zenoh
                from dora_daemon.link.process import run_link

                return run_link(node_socket, incarnation, carrier)

            try:
                return self._processes.start(request, incarnation, self, run), runner_end
            except OSError:
                runner_end.close()
                raise

    def _configure(self) -> messages.Configure:
        plan = self._plan
        self._view.plain = plan.plain
        return messages.Configure(
            dataflow_id=self._services.plan.dataflow_id,
            name=self._services.plan.name or "",
            network=plan.network,
            machine=plan.machine,
            run_id=plan.run_id,
            listen_host=plan.listen_host,
            first_port=plan.first_port,
            last_port=plan.last_port,
            port=self._view.port or plan.port,
            credentials=self._credentials,
            plain=plan.plain,
            names={peer: plan.names.get(peer, "") for peer in plan.peers},
        )

    def _exited(self, status: events.Exit) -> None:
        running, channel = self._running, self._channel
        assert running is not None
        assert channel is not None
        channel.read_rest()
        channel.close()
        self._running = self._channel = None
        self._fed = frozenset()
        self._sessions.process_ended(self._participant, running.incarnation)
        if not (status.ok and self._finishing):
            self._view.link_ended()
        self._registry.schedule_cleanup()
        self._emit(
            events.LinkExited(
                running.incarnation,
                status,
                drained=self._is_drained(),
                last_line="" if status.ok or not self._tail else self._tail[-1],
            )
        )

    def _is_drained(self) -> bool:
        return self._registry.queued(LINK_NODE) == 0

    def finish(self, seconds: float) -> None:
        """Make the link deliver queued messages and end."""
        self._sync()  # send changed streams before Finish
        if self._channel is not None:
            self._finishing = True
            self._channel.send(messages.Finish(seconds=seconds))

    def signal(self, name: str) -> None:
        if self._running is not None:
            self._running.signal_group(name)

    def take(self, stream: Stream, lines: list[str]) -> None:
        """Log the lines that the process printed."""
        level: LogLevel = "warn" if stream == "stderr" else "info"
        for text in lines:
            if stream == "stderr":
                self._tail.append(text)
            self._emit_log(level, text)

    def _emit_log(self, level: LogLevel, text: str) -> None:
        self._log(LogLine(ts=now_text(), level=level, message=text, target=TARGET))

    def _received(self, message: messages.ToRunner) -> None:
        match message:
            case (
                messages.Listening()
                | messages.Failed()
                | messages.StreamCounts()
                | messages.PeerChanged()
            ):
                if isinstance(message, messages.PeerChanged):
                    self._log_peer(message.peer)
                self._view.update(message)
                self._notify()
            case messages.QueuesFed(queues=queues):
                self._fed = frozenset(queues)
                self._notify()
            case messages.SourceEvent(node=node, output=output, event="closed"):
                self._emit(events.SourceClosed(node, output))
            case messages.SourceEvent(node=node, output=output, event="restarted"):
                self._emit(events.SourceReopened(node, output))
            case messages.SourceEvent():
                pass  # a failed source was announced to the readers, and "closed" follows
            case messages.Note(level=level, message=text):
                self._emit_log(level, text)
            case messages.Finished(undelivered=count):
                if count:
                    self._emit_log("warn", f"{count} messages for other machines were discarded")

    def _log_peer(self, peer: PeerReport) -> None:
        before = self._view.peer_state(peer.machine)
        if peer.state != before:
            changed = LinkPeerChanged(peer=peer.machine, state=peer.state, reason=peer.reason)
            self._history.add(changed)
        if peer.state == "lost" and before != "lost":
            cause = f": {peer.reason}" if peer.reason else ""
            self._emit_log("warn", f'lost the link to machine "{peer.machine}"{cause}')
        elif peer.state == "connected" and before == "lost":
            self._emit_log("info", f'restored the link to machine "{peer.machine}"')

    def report(self) -> LinkReport:
        """Return the state of the link."""
        return self._view.report()

    def edge_status(self, entry: QueueEntry) -> EdgeStatus:
        """Return the counters of a queue, with the link's counters."""
        return self._queues.status(entry, self._view)

    def close(self) -> None:
        """Close queues and the channel; the process was killed with those of the nodes."""
        self._queues.close()
        if self._channel is not None:
            self._channel.close()
