"""The link process at the runner's side: started, told of streams and peers, heard, ended."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dora_config.protocol.links import LinkPlan, LinkReport, PeerEndpoint
from dora_config.protocol.runner import EdgeStatus
from dora_config.protocol.runner_events import LinkChanged, LogLevel, LogLine, RunnerEvent
from dora_config.spawn_argv import run_module
from dora_daemon.link import LINK_NODE
from dora_daemon.link.protocol.messages import (
    Configure,
    Failed,
    Finish,
    Finished,
    Incoming,
    Listening,
    Note,
    Outgoing,
    Peer,
    PeerChanged,
    SetIncoming,
    SetOutgoing,
    SetPeers,
    SourceEvent,
    StreamCounts,
    ToLink,
    ToRunner,
)
from dora_daemon.runner.control.status import edge_status
from dora_daemon.runner.link.channel import Carrier
from dora_daemon.runner.link.link_logs import LogReader
from dora_daemon.runner.link.link_report import LinkView, essence
from dora_daemon.runner.link.streams import Streams, streams_of
from dora_daemon.runner.logs.logs import OutputReader, Stream, now_text
from dora_daemon.runner.machine.events import (
    Exit,
    LinkExited,
    LinkSpawned,
    LinksSet,
    SourceClosed,
    SourceReopened,
)
from dora_daemon.runner.machine.wiring import Edge
from dora_daemon.runner.nodes.queues import KeptQueue
from dora_daemon.runner.process.environment import is_reserved
from dora_daemon.runner.process.spawn import NodeProcess, SpawnRequest, spawn

if TYPE_CHECKING:
    from dora_daemon.runner.service import Runner

PROGRAM = run_module("dora_daemon.link")
TARGET = "dora.link"
"""What the link's log lines are said to come from."""
LOOK_AGAIN = 0.05
"""Seconds between looks at a link that has closed its socket, where there are no pidfds."""


class LinkKeeper:
    """All that the runner has of its link, also while no process of it runs."""

    def __init__(self, runner: Runner, on_event: Callable[[RunnerEvent], None]) -> None:
        self._runner = runner
        self._on_event = on_event
        self.view = LinkView()
        self.plan: LinkPlan | None = None
        self.streams = Streams()
        self._credentials: str | None = None
        self._peers: dict[str, PeerEndpoint] = {}
        self._ended: set[str] = set()
        self._process: NodeProcess | None = None
        self._incarnation = 0
        self._carrier: Carrier | None = None
        self._readers: tuple[OutputReader, ...] = ()
        self.tail: deque[str] = deque(maxlen=5)
        """Last lines that the link process printed on stderr."""
        self._log_readers: dict[Edge, LogReader] = {}
        self._told: dict[type[ToLink], ToLink] = {}
        self._told_upward: tuple[object, ...] = ()
        self._syncing = False
        self._loop = asyncio.get_running_loop()

    # ------------------------------------------------------------------ streams and peers

    def read(self, plan: LinkPlan, credentials: str | None) -> None:
        """Learn the plan, before queues are made that depend on it."""
        self.plan = plan
        self.streams = streams_of(plan)
        self.view.run_id = plan.run_id
        self.view.expected = plan.peers
        self._credentials = credentials
        desk = self._runner.desk
        desk.remote_nodes = self.streams.remote_nodes
        desk.on_link_queues = self._sync_soon

    def apply(self) -> None:
        """Make and drop queues as the plan says. Raises QueueUnavailable."""
        runner = self._runner
        wanted = [f for f in self.streams.outflows if f.machine not in self._ended]
        for kept in runner.book.into(LINK_NODE):
            flow = self.streams.outflow_of(kept.edge)
            if flow not in wanted or (flow.backpressure and not kept.spec.backpressure):
                runner.desk.drop_outflow(kept)
        for flow in wanted:
            runner.desk.make_outflow(flow)
        self._read_logs()
        for kept in runner.book.all():
            if kept.edge.source in self.streams.remote_nodes and not kept.from_link:
                # It waited for a node that has come on another machine.
                kept.from_link = True
                runner.desk.route(kept, "")
        runner.tell(LinksSet(tuple(flow.edge for flow in wanted)))
        self._sync_soon()

    def _read_logs(self) -> None:
        book = self._runner.book
        wanted = {flow.log_edge: flow for flow in self.streams.inflows if flow.logs}
        for edge in [e for e in self._log_readers if e not in wanted]:
            self._log_readers.pop(edge).close()
            if (kept := book.get(edge)) is not None:
                self._runner.desk.drop_queue(kept)
        for edge, flow in wanted.items():
            if edge in self._log_readers:
                continue
            kept, _ = book.ensure(edge, bound=1000, from_link=True)
            self._runner.desk.route(kept, "")
            readers = flow.readers

            def hand_on(text: str, readers: tuple[tuple[str, str], ...] = readers) -> None:
                self._runner.hand_on_line(readers, text)

            self._log_readers[edge] = LogReader(
                book.board, kept, self._runner.desk.find_segment, hand_on
            )

    def set_peers(self, peers: Iterable[PeerEndpoint], ended: Iterable[str]) -> None:
        """Where other links listen, merged into what is known. Raises QueueUnavailable."""
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

    def close_ended(self) -> None:
        """Before a link is let in: inputs whose source's machine has ended for good are closed.

        A link that runs does that itself; a new one does not write into their queues.
        """
        runner = self._runner
        for flow in self.streams.inflows:
            edges = runner.state.wiring.edges_from(flow.node, (flow.output,))
            closed = all(e.input in runner.state.wiring.closed_inputs(e.target) for e in edges)
            if flow.machine in self._ended and not closed:
                runner.book.announce_closed(flow.node, (flow.output,))
                runner.tell(SourceClosed(flow.node, flow.output))

    def _sync_soon(self) -> None:
        if not self._syncing:
            self._syncing = True
            self._loop.call_soon(self._sync)

    def _sync(self) -> None:
        """Tell the link what has changed: always the full lists."""
        self._syncing = False
        if self._carrier is None:
            return
        for message in (self._outgoing(), self._incoming(), self._known_peers()):
            if self._told.get(type(message)) != message:
                self._told[type(message)] = message
                self._carrier.send(message)

    def _outgoing(self) -> SetOutgoing:
        found = []
        for flow in self.streams.outflows:
            kept = self._runner.book.get(flow.edge)
            if kept is not None:
                found.append(
                    Outgoing(
                        machine=flow.machine,
                        node=flow.node,
                        output=flow.output,
                        queue=kept.spec.queue,
                    )
                )
        return SetOutgoing(streams=tuple(found))

    def _incoming(self) -> SetIncoming:
        queues: dict[tuple[str, str], list[int]] = {}
        for kept in self._runner.book.written_by(LINK_NODE):
            edge = kept.edge
            queues.setdefault((edge.source, edge.output), []).append(kept.spec.queue)
        streams = [
            Incoming(
                machine=flow.machine,
                node=flow.node,
                output=flow.output,
                queues=tuple(queues.get((flow.node, flow.output), ())),
            )
            for flow in self.streams.inflows
        ]
        return SetIncoming(streams=tuple(streams))

    def _known_peers(self) -> SetPeers:
        peers = [
            Peer(machine=p.machine, run_id=p.run_id, endpoints=p.endpoints)
            for p in self._peers.values()
        ]
        return SetPeers(peers=tuple(peers))

    # ------------------------------------------------------------------------ the process

    def spawn(self, incarnation: int) -> None:
        """Start a link process; LinkSpawned or LinkExited tells what came of it."""
        runner, plan = self._runner, self.plan
        assert plan is not None
        self._incarnation = incarnation
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [*PROGRAM, "--socket", str(runner.node_socket)]
            argv += ["--incarnation", str(incarnation), "--carrier", str(theirs.fileno())]
            env = {k: v for k, v in os.environ.items() if not is_reserved(k)}
            request = SpawnRequest(tuple(argv), "/", env, inherited=(theirs.fileno(),))
            try:
                process = spawn(request)
            except (OSError, ValueError) as error:
                ours.close()
                runner.tell(LinkExited(incarnation, Exit(), error=str(error)))
                return
        runner.record(process.pid)
        self._process = process
        self.tail.clear()
        self._carrier = Carrier(
            ours,
            self._heard,
            lambda text: self._say("warn", text),
            broken=lambda: self.signal("SIGKILL"),
        )
        self._readers = (
            OutputReader(process.stdout, "stdout", self),
            OutputReader(process.stderr, "stderr", self),
        )
        self._carrier.send(self._configure(plan))
        self._told.clear()
        self._sync_soon()
        if process.exit_fd is not None:
            self._loop.add_reader(process.exit_fd, self._exited)
        else:
            self._loop.call_later(LOOK_AGAIN, self._look_again)
        runner.tell(LinkSpawned(incarnation, process.pid))

    def _configure(self, plan: LinkPlan) -> Configure:
        return Configure(
            dataflow_id=self._runner.plan.dataflow_id,
            network=plan.network,
            machine=plan.machine,
            run_id=plan.run_id,
            listen_host=plan.listen_host,
            first_port=plan.first_port,
            last_port=plan.last_port,
            port=self.view.port,
            credentials=self._credentials,
        )

    @property
    def pid(self) -> int | None:
        """Of the link process that runs."""
        return None if self._process is None else self._process.pid

    def _look_again(self) -> None:
        if self._process is not None:
            self._exited()
            self._loop.call_later(LOOK_AGAIN, self._look_again)

    def _exited(self) -> None:
        process, carrier = self._process, self._carrier
        if process is None or carrier is None or (status := process.reap()) is None:
            return
        carrier.read_rest()
        self._let_go(process, carrier)
        runner = self._runner
        runner.desk.process_ended(LINK_NODE, self._incarnation)
        if not (status.ok and runner.state.link.ending):  # else nobody is lost: it was its time
            self.view.link_ended()
            self._tell_upward()
        runner.tidy_soon()
        runner.tell(
            LinkExited(
                self._incarnation,
                status,
                drained=runner.book.queued(LINK_NODE) == 0,
                last_words="" if status.ok or not self.tail else self.tail[-1],
            )
        )

    def _let_go(self, process: NodeProcess, carrier: Carrier) -> None:
        if process.exit_fd is not None:
            self._loop.remove_reader(process.exit_fd)
        for reader in self._readers:
            reader.finish()
        process.close()
        carrier.close()
        self._process = self._carrier = None
        self._readers = ()

    def finish(self, seconds: float) -> None:
        """Have it pass on what waits, and end."""
        # What it must know of the last streams comes before.
        self._sync()
        if self._carrier is not None:
            self._carrier.send(Finish(seconds=seconds))

    def signal(self, name: str) -> None:
        if self._process is not None:
            self._process.signal_group(name)

    # ------------------------------------------------------------------------- what it says

    def take(self, stream: Stream, lines: list[str]) -> None:
        """Lines that the process printed; nothing holds them back."""
        level: LogLevel = "warn" if stream == "stderr" else "info"
        for text in lines:
            if stream == "stderr":
                self.tail.append(text)
            self._say(level, text)

    def _say(self, level: LogLevel, text: str) -> None:
        self._runner.log(LogLine(ts=now_text(), level=level, message=text, target=TARGET))

    def _heard(self, message: ToRunner) -> None:
        match message:
            case Listening() | Failed() | StreamCounts() | PeerChanged():
                if isinstance(message, PeerChanged):
                    self._say_of_peer(message)
                self.view.take(message)
                self._tell_upward()
            case SourceEvent(node=node, output=output, event="closed"):
                self._runner.tell(SourceClosed(node, output))
            case SourceEvent(node=node, output=output, event="restarted"):
                self._runner.tell(SourceReopened(node, output))
            case SourceEvent():
                pass  # the readers know; that it has closed, too, comes next
            case Note(level=level, message=text):
                self._say(level, text)
            case Finished(undelivered=count):
                if count:
                    self._say("warn", f"{count} messages for other machines were not delivered")

    def _say_of_peer(self, message: PeerChanged) -> None:
        before = {p.machine: p.state for p in self.view.report().peers}.get(message.machine)
        if message.state == "lost" and before != "lost":
            why = f": {message.reason}" if message.reason else ""
            self._say("warn", f'the link to machine "{message.machine}" is lost{why}')
        elif message.state == "proven" and before == "lost":
            self._say("info", f'the link to machine "{message.machine}" is back')

    def _tell_upward(self) -> None:
        report = self.view.report()
        if (now := essence(report)) != self._told_upward:
            self._told_upward = now
            self._on_event(LinkChanged(report=report))

    def report(self) -> LinkReport | None:
        """For the runner's status."""
        return None if self.plan is None else self.view.report()

    def edge(self, kept: KeptQueue) -> EdgeStatus:
        """Counters of a queue, with those of the link where the edge crosses."""
        status = edge_status(kept)
        edge = kept.edge
        if (flow := self.streams.outflow_of(edge)) is not None:
            crossing = self.view.crossing(flow.machine, flow.node, flow.output, "out")
            return status.model_copy(update={"crossing": crossing})
        machine = self.streams.sources.get((edge.source, edge.output))
        if kept.from_link and machine is not None:
            crossing = self.view.crossing(machine, edge.source, edge.output, "in")
            return status.model_copy(update={"crossing": crossing})
        return status

    def close(self) -> None:
        """Kill and wait for the process; nobody is told."""
        for reader in self._log_readers.values():
            reader.close()
        self._log_readers.clear()
        process, carrier = self._process, self._carrier
        if process is not None and carrier is not None:
            process.signal_group("SIGKILL")
            process.wait()
            self._let_go(process, carrier)
