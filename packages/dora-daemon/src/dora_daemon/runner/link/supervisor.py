"""Runs the link process: spawns it, sends it streams and peers, reports its state."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dora_config.dataflow.variables import is_reserved
from dora_config.history.entries import LinkPeerChanged
from dora_config.protocol.links import LinkPlan, LinkReport, PeerEndpoint
from dora_config.protocol.runner import EdgeStatus
from dora_config.protocol.runner_events import LinkChanged, LogLevel, LogLine, RunnerEvent
from dora_config.spawn_argv import run_module
from dora_daemon.link import LINK_NODE
from dora_daemon.link.protocol import messages
from dora_daemon.runner.link.channel import RunnerChannel
from dora_daemon.runner.link.stream_queues import StreamQueues
from dora_daemon.runner.link.view import LinkView, essence
from dora_daemon.runner.logs.logs import OutputReader, Stream, now_text
from dora_daemon.runner.machine import events
from dora_daemon.runner.nodes.queues import QueueEntry
from dora_daemon.runner.nodes.services import NodeServices
from dora_daemon.runner.process.spawn import NodeProcess, SpawnRequest, spawn
from dora_daemon.runner.process.supervisor import RunningProcess

PROGRAM = run_module("dora_daemon.link")
TARGET = "dora.link"
"""``target`` of the link's log lines."""
POLL_SECONDS = 0.05
"""Interval at which the exit of a link is checked on systems without process descriptors."""


@dataclass(slots=True)
class LinkProcess(RunningProcess):
    """One running process of the link."""

    channel: RunnerChannel
    finishing: bool = False
    """It was ordered to deliver queued messages and end."""


class LinkSupervisor:
    """The link of one runner, over all its processes."""

    def __init__(
        self,
        plan: LinkPlan,
        credentials: str | None,
        services: NodeServices,
        *,
        dataflow_id: str,
        name: str | None,
        node_socket: Path,
        emit: Callable[[events.StateEvent], None],
        record_process: Callable[[int], None],
        on_event: Callable[[RunnerEvent], None],
    ) -> None:
        """``record_process`` records a pid to be killed if the runner is killed."""
        self._dataflow_id = dataflow_id
        self._name = name
        self._node_socket = node_socket
        self._queues = StreamQueues(services)
        self._registry = services.registry
        self._departures = services.departures
        self._cleanup = services.cleanup
        self._emit = emit
        self._log = services.logs.log
        self._history = services.logs.history
        self._record_process = record_process
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._view = LinkView()
        self._peers: dict[str, PeerEndpoint] = {}
        self._ended: set[str] = set()
        """Machines whose part of the dataflow has ended permanently."""
        self._running: LinkProcess | None = None
        self._tail: deque[str] = deque(maxlen=5)
        """Last lines on stderr."""
        self._sent: dict[type[messages.ToLink], messages.ToLink] = {}
        self._reported: tuple[object, ...] = ()
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

        A running link does that itself; a new one does not write into their queues.
        """
        for stream in self._queues.streams.incoming:
            if stream.machine in self._ended:
                self._emit(events.SourceLost(stream.node, stream.output))

    def has_source(self, node: str, output: str) -> bool:
        """Return whether an output of another machine is received here."""
        return (node, output) in self._queues.streams.sources

    def _sync_soon(self) -> None:
        if not self._syncing:
            self._syncing = True
            self._loop.call_soon(self._sync)

    def _sync(self) -> None:
        """Send the complete lists that have changed."""
        self._syncing = False
        if self._running is None:
            return
        for message in (self._queues.outgoing(), self._queues.incoming(), self._known_peers()):
            if self._sent.get(type(message)) != message:
                self._sent[type(message)] = message
                self._running.channel.send(message)

    def _known_peers(self) -> messages.SetPeers:
        peers = tuple(messages.Peer(**peer.model_dump()) for peer in self._peers.values())
        return messages.SetPeers(peers=peers)

    def spawn(self, incarnation: int) -> None:
        """Start a link process and emit LinkSpawned, or LinkExited with the error."""
        try:
            process, runner_end = self._start(incarnation)
        except (OSError, ValueError) as error:
            exited = events.LinkExited(
                incarnation, events.Exit(), drained=self._is_drained(), error=str(error)
            )
            self._emit(exited)
            return
        self._record_process(process.pid)
        self._tail.clear()
        channel = RunnerChannel(
            runner_end,
            self._received,
            lambda text: self._emit_log("warn", text),
            on_broken=lambda: self.signal("SIGKILL"),
        )
        readers = (
            OutputReader(process.stdout, "stdout", self),
            OutputReader(process.stderr, "stderr", self),
        )
        self._running = LinkProcess(LINK_NODE, incarnation, process, readers, channel)
        channel.send(self._configure())
        self._sent.clear()
        self._sync_soon()
        if process.exit_fd is not None:
            self._loop.add_reader(process.exit_fd, self._exited)
        else:
            self._loop.call_later(POLL_SECONDS, self._poll)
        self._emit(events.LinkSpawned(incarnation, process.pid))

    def _start(self, incarnation: int) -> tuple[NodeProcess, socket.socket]:
        """Return a link process, and this end of the socket that it inherits."""
        runner_end, link_end = socket.socketpair()
        with link_end:
            argv = [*PROGRAM, "--socket", str(self._node_socket)]
            argv += ["--incarnation", str(incarnation), "--carrier", str(link_end.fileno())]
            env = {k: v for k, v in os.environ.items() if not is_reserved(k)}
            request = SpawnRequest(tuple(argv), "/", env, inherited=(link_end.fileno(),))
            try:
                return spawn(request), runner_end
            except (OSError, ValueError):
                runner_end.close()
                raise

    def _configure(self) -> messages.Configure:
        plan = self._plan
        self._view.plain = plan.plain
        return messages.Configure(
            dataflow_id=self._dataflow_id,
            name=self._name or "",
            network=plan.network,
            machine=plan.machine,
            run_id=plan.run_id,
            listen_host=plan.listen_host,
            first_port=plan.first_port,
            last_port=plan.last_port,
            port=self._view.port,
            credentials=self._credentials,
            plain=plan.plain,
            names={peer: plan.names.get(peer, "") for peer in plan.peers},
        )

    def _poll(self) -> None:
        if self._running is not None:
            self._exited()
            self._loop.call_later(POLL_SECONDS, self._poll)

    def _exited(self) -> None:
        running = self._running
        if running is None or (status := running.process.reap()) is None:
            return
        running.channel.read_rest()
        self._release(running)
        self._departures.process_ended(LINK_NODE, running.incarnation)
        if not (status.ok and running.finishing):
            self._view.link_ended()
            self._report_changes()
        self._cleanup.schedule()
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

    def _release(self, running: LinkProcess) -> None:
        running.release(self._loop)
        running.channel.close()
        self._running = None

    def finish(self, seconds: float) -> None:
        """Make the link deliver queued messages and end."""
        self._sync()  # the last streams come first
        if self._running is not None:
            self._running.finishing = True
            self._running.channel.send(messages.Finish(seconds=seconds))

    def signal(self, name: str) -> None:
        if self._running is not None:
            self._running.process.signal_group(name)

    def take(self, stream: Stream, lines: list[str]) -> None:
        """Log lines that the process printed."""
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
                    self._log_peer(message)
                self._view.update(message)
                self._report_changes()
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

    def _log_peer(self, message: messages.PeerChanged) -> None:
        before = self._view.peer_state(message.machine)
        if message.state != before:
            reason = message.reason or None
            changed = LinkPeerChanged(peer=message.machine, state=message.state, reason=reason)
            self._history.add(changed)
        if message.state == "lost" and before != "lost":
            cause = f": {message.reason}" if message.reason else ""
            self._emit_log("warn", f'lost the link to machine "{message.machine}"{cause}')
        elif message.state == "proven" and before == "lost":
            self._emit_log("info", f'restored the link to machine "{message.machine}"')

    def _report_changes(self) -> None:
        report = self._view.report()
        if (now := essence(report)) != self._reported:
            self._reported = now
            self._on_event(LinkChanged(report=report))

    def report(self) -> LinkReport:
        """Return the state of the link."""
        return self._view.report()

    def edge_status(self, entry: QueueEntry) -> EdgeStatus:
        """Return the counters of a queue, with those of the link."""
        return self._queues.status(entry, self._view)

    def close(self) -> None:
        """Kill the process and wait for its end, without events."""
        self._queues.close()
        running = self._running
        if running is not None:
            running.process.signal_group("SIGKILL")
            running.process.wait()
            self._release(running)
