"""The link process: connects the runner's lists with peers and streams."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

from dora_config.protocol.links import PeerEndpoint
from dora_daemon.link.errors import CannotListen, LinkEnds, LinkProcessError
from dora_daemon.link.io.node_client import NodeClient
from dora_daemon.link.io.runner_connection import RunnerConnection
from dora_daemon.link.io.session import LinkSession, silence
from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.peers.dialer import Dialer
from dora_daemon.link.peers.listener import PeerListener
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.peers.reports import Reports
from dora_daemon.link.peers.router import FrameRouter
from dora_daemon.link.peers.stream_table import StreamTable
from dora_daemon.link.protocol.access import PeerKeys
from dora_daemon.link.protocol.messages import (
    Configure,
    Failed,
    Finish,
    Finished,
    Listening,
    SetIncoming,
    SetOutgoing,
    SetPeers,
    ToLink,
    encode,
)
from dora_node_api.transport.producer.sending import wait_readable
from dora_node_api.transport.shared.specs import QueueSpec

_TICK = 0.05
"""Seconds between timer ticks."""
_IDLE_TICK = 0.5
"""Seconds between ticks while all peers are connected and agree."""
_FINISHING_TICK = 0.005
"""Seconds between ticks while the link ends, so that it does not delay the dataflow."""
_END_SECONDS = 5.0
"""Seconds for the threads to end."""
_BYE_SECONDS = 1.0
"""Longest time to wait until the peers have received that our part has ended."""


class Link:
    """One link process; `run` is its main thread."""

    def __init__(self, carrier: socket.socket, node_socket: str, incarnation: int) -> None:
        """Wait for the configuration and connect to the node socket. Raises LinkProcessError."""
        self._runner = RunnerConnection(carrier)
        self._config = config = self._runner.configuration()
        self.machine = config.machine
        self.run_id = config.run_id
        self.link_id = secrets.randbits(63) or 1
        self._credentials = Path(config.credentials) if config.credentials else None
        self._names = dict(config.names)
        """Common names in the certificates of peers, which the listening sessions accept.

        An empty name is not known yet, and its peer is refused.
        """
        self._ending = False
        self._finish_at: float | None = None
        self._bye_until = 0.0
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed: set[str] = set()
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._soon = threading.Event()
        self._node = NodeClient(node_socket, incarnation, wait_for_room=self._wait_for_room)
        self._node.on_warning = self._runner.note
        self._streams = StreamTable(
            self._node,
            window_messages=config.window_messages,
            window_bytes=config.window_bytes,
            send=self._runner.send,
            note=self._runner.note,
        )
        self._router = FrameRouter(
            self.link_id,
            self.machine,
            _key_prefix(config),
            config.name or config.dataflow_id,
            self._runner.note,
            self._peer_runs_anew,
        )
        self._peers = self._router.peers
        self._dialers: dict[str, Dialer] = {}
        self._reports = Reports(self._runner.send)
        self._listener = PeerListener(config, self._credentials, self._prepare_listening)

    # --- for peers, on any thread -----------------------------------------------------------------

    def key_to(self, machine: str) -> str:
        """Return the key on which a machine's link receives our frames."""
        return self._router.key_to(machine)

    @property
    def low_latency_port(self) -> int:
        """Port that it listens on for low-latency connections; 0 without one."""
        return self._listener.low_latency_port

    def changed(self, peer: PeerLink) -> None:
        """Report the state of a peer."""
        self._changed.add(peer.machine)
        self._wake()

    def broken(self, peer: PeerLink, session: LinkSession, why: str) -> None:
        """Handle a failed put on the main thread."""
        self._jobs.append(lambda: peer.lost_session(session, why))
        self._wake()

    def _peer_runs_anew(self, machine: str, run_id: str) -> None:
        """Handle the hello of a later run: the coordinator may be away when a machine restarts."""

        def change() -> None:
            peer = self._peers.get(machine)
            if peer is not None:
                peer.set_run(run_id, peer.endpoints)

        self._jobs.append(change)
        self._wake()

    def look_soon(self) -> None:
        """Call every peer's `soon`."""
        if not self._soon.is_set():
            self._soon.set()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    def _wait_for_room(self, spec: QueueSpec, descriptor: int, timeout: float) -> bool:
        if self._ending:
            raise LinkEnds("the link ends")
        return wait_readable(spec, descriptor, timeout)

    # --- sessions ---------------------------------------------------------------------------------

    def _prepare(self, session: LinkSession, machine: str) -> None:
        """Receive what a machine sends over a session."""
        session.subscribe(self._channel(machine).incoming, partial(self._router.receive, machine))

    def _prepare_dialed(self, machine: str, session: LinkSession) -> None:
        session.watch(self._on_transport)
        self._prepare(session, machine)

    def _prepare_listening(self, session: LinkSession) -> None:
        session.watch(self._on_transport)
        for machine in self._names:
            self._prepare(session, machine)

    def _listen(self) -> None:
        """Open the listening sessions, and report the address. Raises CannotListen."""
        before = self._listener.endpoint
        self._listener.open(
            [self._channel(machine) for machine, name in self._names.items() if name]
        )
        if self._listener.endpoint != before:
            self._runner.send(Listening(endpoints=(self._listener.endpoint,)))

    def _channel(self, machine: str) -> PeerKeys:
        return self._router.channel(machine, self._names.get(machine, ""))

    def _on_transport(self, session: LinkSession, zid: str, opened: bool) -> None:
        """Handle a connection that opened or closed, on a thread of Zenoh."""
        if opened:
            return
        for peer in list(self._peers.values()):
            dialed = session not in self._listener.sessions
            if dialed or peer.connected_by(session, zid):
                self.broken(peer, session, "the connection was closed")

    # --- the main thread --------------------------------------------------------------------------

    def run(self) -> int:
        """Run until the runner is gone or Finish is carried out; return the exit code."""
        try:
            self._listen()
        except CannotListen as error:
            self._runner.send(Failed(reason=str(error)))
            return 1
        threading.Thread(
            target=guarded(self._run_soon, self._runner.note), name="soon", daemon=True
        ).start()
        poll = select.poll()
        for descriptor in (self._runner.fileno(), self._node.fileno(), self._wake_read):
            poll.register(descriptor, select.POLLIN)
        self._handle(self._runner.early)
        while not self._ending:
            ready = dict(poll.poll(self._pause() * 1000))
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            if self._node.fileno() in ready and self._node.receive():
                self._streams.settle(self._peers)
            if self._runner.fileno() in ready:
                messages = self._runner.receive()
                if messages is None:
                    break
                self._handle(messages)
            if self._node.gone:
                break
            self._tick()
        self._close()
        return 0

    def _pause(self) -> float:
        if self._finish_at is not None:
            return _FINISHING_TICK
        settled = all(peer.settled for peer in self._peers.values())
        return _IDLE_TICK if settled and not self._streams.ending else _TICK

    def _handle(self, messages: list[ToLink]) -> None:
        for message in messages:
            match message:
                case SetPeers(peers=peers):
                    self._set_peers(peers)
                case SetOutgoing(streams=streams):
                    self._streams.want_outgoing(streams)
                case SetIncoming(streams=streams):
                    self._streams.want_incoming(streams)
                case Finish(seconds=seconds):
                    self._finish_at = time.monotonic() + seconds
                    continue
                case Configure():
                    continue
                case _:
                    assert_never(message)
            self._node.receive()
            self._streams.settle(self._peers)

    def _set_peers(self, peers: tuple[PeerEndpoint, ...]) -> None:
        wanted = {peer.machine: peer for peer in peers}
        names = self._names | {peer.machine: peer.name for peer in peers if peer.name}
        if names != self._names:
            self._names = names
            self._listen_again("a machine was added or has another certificate")
        for machine in self._peers.keys() - wanted.keys():
            self._dialers.pop(machine).end()
            self._router.forget_links(self._peers.pop(machine))
            self._streams.source_ended(machine)
        for machine, peer in wanted.items():
            known = self._peers.get(machine)
            if known is not None:
                known.plain = peer.plain
                known.set_run(peer.run_id, peer.endpoints)
                continue
            link = PeerLink(self, machine, peer.run_id, peer.endpoints)
            link.plain = peer.plain
            self._peers[machine] = link
            self._dialers[machine] = Dialer(
                peer=link,
                first=self.machine < machine,
                credentials=self._credentials,
                plain=self._config.plain,
                ports=self._listener.ordinary_ports,
                channel=partial(self._channel, machine),
                prepare=partial(self._prepare_dialed, machine),
                changed=self.changed,
                note=self._runner.note,
            )
            self._changed.add(machine)

    def _tick(self) -> None:
        while self._jobs:
            self._jobs.popleft()()
        now = time.monotonic_ns()
        for peer in self._peers.values():
            peer.tick(now)
        for machine in list(self._changed):
            # Remove it before the report, so that a change during the report is reported too.
            self._changed.discard(machine)
            if machine in self._peers:
                self._reports.peer(self._peers[machine].report())
        if self._streams.overdue:
            self._streams.settle(self._peers)
        self._reports.fed(self._streams.fed(self._peers))
        self._reports.counts(self._streams, now)
        if self._listener.certificate_renewed(now):
            self._listen_again("the certificate was renewed")
        if self._finish_at is not None and not self._ending:
            self._finish(self._finish_at)

    def _finish(self, deadline: float) -> None:
        """End once everything is acknowledged or the deadline has passed."""
        unsent = self._streams.unsent(lambda machine: self._peers[machine].status.left)
        if unsent and time.monotonic() < deadline:
            return
        now = time.monotonic()
        self._bye_until = self._bye_until or now + _BYE_SECONDS
        received = [peer.say_bye() for peer in self._peers.values()]
        if not all(received) and now < self._bye_until:
            return
        self._reports.counts(self._streams, 0)
        self._runner.send(Finished(undelivered=unsent))
        self._ending = True

    def _run_soon(self) -> None:
        """Thread: send acknowledgements that may wait together, and pings that are due."""
        pause: float | None = None
        while not self._ending:
            self._soon.wait(pause)
            self._soon.clear()
            now = time.monotonic_ns()
            due = [peer.soon(now) for peer in list(self._peers.values())]
            pause = min((ns / 1e9 for ns in due if ns is not None), default=None)

    def _listen_again(self, why: str) -> None:
        """Replace the listening sessions, whose certificate and peers cannot be changed."""
        sessions = self._listener.sessions
        if not sessions:
            return
        self._listener.close()
        for session in sessions:
            for peer in list(self._peers.values()):
                peer.lost_session(session, why)
        try:
            self._listen()
        except CannotListen as error:
            self._runner.send(Failed(reason=str(error)))
            self._ending = True

    def _close(self) -> None:
        self._ending = True
        self._soon.set()
        for dialer in self._dialers.values():
            dialer.end()
        self._streams.end()
        end = time.monotonic() + _END_SECONDS
        for dialer in self._dialers.values():
            dialer.join(end - time.monotonic())
        self._listener.close()


def _key_prefix(config: Configure) -> str:
    return f"dora/{quote(config.network, safe='')}/{quote(config.dataflow_id, safe='')}"


def run_link(node_socket: str, incarnation: int, carrier: int) -> int:
    """Run the link of a runner in this process; return the exit code.

    ``carrier``: descriptor of a socket to the runner. Do not finalize the interpreter afterwards:
    Zenoh's threads may still use it.
    """
    # The runner ends the link; an interrupt at the terminal is for the runner.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence()
    connection = socket.socket(fileno=carrier)
    try:
        return Link(connection, node_socket, incarnation).run()
    except LinkProcessError as error:
        try:
            connection.sendall(encode(Failed(reason=str(error))))
        except OSError:
            print(f"dora link: {error}", file=sys.stderr)
        return 1
