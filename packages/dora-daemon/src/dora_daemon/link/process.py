"""The link of one dataflow on one machine: what the runner says, and frames to and from peers."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from dora_daemon.link.errors import CannotListen, LinkEnds, LinkError, WireError
from dora_daemon.link.io.dialer import Dialler
from dora_daemon.link.io.messages import (
    Configure,
    Failed,
    Finish,
    Finished,
    Lines,
    Listening,
    Note,
    Peer,
    SetIncoming,
    SetOutgoing,
    SetPeers,
    SourceNews,
    ToRunner,
    decode_for_link,
    encode,
)
from dora_daemon.link.io.node_client import NodeSide
from dora_daemon.link.io.peer import PeerLink
from dora_daemon.link.io.reports import Reports
from dora_daemon.link.io.session import Session
from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.protocol import frames as wire
from dora_daemon.link.protocol import hello as greetings
from dora_daemon.link.streams.receiver import IncomingStream
from dora_daemon.link.streams.streams import Streams
from dora_node_api.transport import QueueSpec

_TICK = 0.05
_IDLE_TICK = 0.5
_END_SECONDS = 5.0
_SOON = 0.004
_CREDENTIALS_NS = 5_000_000_000
_SAME_NOTE_NS = 10_000_000_000
_KIND_OF_NOTE = 60
_MOST_KINDS = 1000


class Link:
    """Everything of one link process; `run` is its main thread."""

    def __init__(self, carrier: socket.socket, node_socket: str, incarnation: int) -> None:
        """Wait for the configuration and be let in by the runner. Raises LinkError."""
        self._carrier = carrier
        self._lines = Lines()
        self._early: list[bytes] = []
        self._telling = threading.Lock()
        self._noted: dict[str, int] = {}
        self.link = secrets.randbits(63) or 1
        self.config = self._configured()
        self.machine = self.config.machine
        self.run_id = self.config.run_id
        self._credentials = Path(self.config.credentials) if self.config.credentials else None
        self._ending = False
        self._finish_at: float | None = None
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed: set[str] = set()
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._soon = threading.Event()
        self.node = NodeSide(node_socket, incarnation, wait_for_room=self._wait_for_room)
        self.node.on_warning = self.note
        self.streams = Streams(
            self.node,
            self,
            window_messages=self.config.window_messages,
            window_bytes=self.config.window_bytes,
            note=self.note,
        )
        self.peers: dict[str, PeerLink] = {}
        self._by_link: dict[int, PeerLink] = {}
        self._diallers: dict[str, Dialler] = {}
        self._reports = Reports(self.tell)
        self._listener: Session | None = None
        self._certificate = self._certificate_time()
        self._looked_ns = time.monotonic_ns()

    # --- talking to the runner --------------------------------------------------------------------

    def _configured(self) -> Configure:
        """Wait for the first message. Raises LinkError."""
        while True:
            data = self._carrier.recv(65536)
            if not data:
                raise LinkError("the runner closed the carrier before it configured the link")
            lines = self._lines.feed(data)
            if lines:
                first = decode_for_link(lines[0])
                if not isinstance(first, Configure):
                    raise LinkError(f"the runner's first message is {lines[0][:100]!r}")
                self._early = lines[1:]
                return first

    def tell(self, message: ToRunner) -> None:
        """Send a message to the runner; once it is gone there is nobody to tell."""
        with self._telling, contextlib.suppress(OSError):
            self._carrier.sendall(encode(message))

    def note(self, sentence: str) -> None:
        """A line for the log; those of a kind, which begin alike, at most once in ten seconds."""
        now = time.monotonic_ns()
        kind = sentence[:_KIND_OF_NOTE]
        if now - self._noted.get(kind, -_SAME_NOTE_NS) < _SAME_NOTE_NS:
            return
        if len(self._noted) >= _MOST_KINDS:
            self._noted.clear()
        self._noted[kind] = now
        self.tell(Note(level="warn", message=sentence))

    # --- what peers and streams need (any thread) -------------------------------------------------

    def key_to(self, machine: str) -> str:
        """The key on which a machine's link listens to ours."""
        return self._key(machine, quote(self.machine, safe=""))

    def _key(self, to: str, sender: str) -> str:
        network, dataflow = quote(self.config.network, safe=""), self.config.dataflow_id
        return f"dora/{network}/{quote(dataflow, safe='')}/link/{quote(to, safe='')}/{sender}"

    def changed(self, peer: PeerLink) -> None:
        self._changed.add(peer.machine)
        self._wake()

    def broken(self, peer: PeerLink, session: Session, why: str) -> None:
        self._jobs.append(lambda: peer.lost_session(session, why))
        self._wake()

    def stored(self, stream: IncomingStream, *, at_once: bool) -> None:
        peer = self.peers.get(stream.machine)
        if peer is not None and peer.stored(stream, at_once=at_once):
            self._soon.set()

    def look_soon(self) -> None:
        self._soon.set()

    def news(self, stream: IncomingStream, news: str, error: str) -> None:
        self.tell(
            SourceNews.model_validate(
                {
                    "machine": stream.machine, "node": stream.node, "output": stream.output,
                    "news": news, "error": error,
                }
            )
        )  # fmt: skip

    def to_our_time(self, stream: IncomingStream, their_monotonic: int) -> int:
        now = time.monotonic_ns()
        peer = self.peers.get(stream.machine)
        return now if peer is None else peer.clock.to_ours(their_monotonic, now)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    def _wait_for_room(self, spec: QueueSpec, descriptor: int, timeout: float) -> bool:
        if self._ending:
            raise LinkEnds("the link ends")
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(max(1, int(timeout * 1000)))
        return True

    # --- frames -----------------------------------------------------------------------------------

    def _on_frame(self, session: Session, frame: bytes) -> None:
        """On a thread of Zenoh."""
        try:
            head = wire.read_head(frame)
            if head.kind == wire.FrameKind.GREETING:
                self._greeted(session, head, frame)
                return
            peer = self._by_link.get(head.sender)
            if peer is not None and head.receiver == self.link and peer.their_link == head.sender:
                peer.received(head, frame)
        except WireError as error:
            self.note(f"a frame that no link sends was left aside: {error}")
        except Exception as error:  # noqa: BLE001 - Zenoh's thread must go on
            self.note(f"a frame could not be taken in: {type(error).__name__}: {error}")

    def _greeted(self, session: Session, head: wire.Head, frame: bytes) -> None:
        greeting = greetings.decode(frame[wire.HEAD.size :])
        peer = self.peers.get(greeting.machine)
        if peer is None or peer.run_id != greeting.run_id:
            return
        if greeting.protocol != greetings.PROTOCOL:
            peer.trouble = (
                f"the link of {peer.machine} speaks version {greeting.protocol} of the protocol,"
                f" this one {greetings.PROTOCOL}; install the same version of dora on both"
            )
            return
        if head.sender not in self._by_link:
            self._forget_links(peer)
            self._by_link[head.sender] = peer
        peer.greeted(session, head, greeting)

    def _forget_links(self, peer: PeerLink) -> None:
        """Earlier links of a peer, or of one that is gone."""
        for number, known in list(self._by_link.items()):
            if known is peer:
                self._by_link.pop(number, None)

    def _on_transport(self, session: Session, zid: str, came: bool) -> None:
        """On a thread of Zenoh: a connection came or went."""
        if came:
            return
        for peer in list(self.peers.values()):
            if peer.session is session and (session is not self._listener or peer.uses_zid(zid)):
                self.broken(peer, session, "the connection was closed")

    def _prepare(self, session: Session) -> None:
        session.watch(self._on_transport)
        session.subscribe(self._key(self.machine, "*"), self._on_frame)

    # --- the main thread --------------------------------------------------------------------------

    def run(self) -> int:
        """Until the runner is gone, or everything is passed on after Finish. The exit code."""
        try:
            self._listener = self._listen(self.config.port)
        except CannotListen as error:
            self.tell(Failed(reason=str(error)))
            return 1
        self.tell(Listening(endpoints=(self._listener.endpoint,)))
        threading.Thread(
            target=guarded(self._look_soon, self.note), name="soon", daemon=True
        ).start()
        poll = select.poll()
        for descriptor in (self._carrier.fileno(), self.node.fileno(), self._wake_read):
            poll.register(descriptor, select.POLLIN)
        for line in self._early:
            self._said(line)
        while not self._ending:
            ready = dict(poll.poll(self._pause() * 1000))
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            if self.node.fileno() in ready and self.node.take_in():
                self.streams.settle(self.peers)
            if self._carrier.fileno() in ready and not self._hear():
                break
            if self.node.gone:
                break
            self._tick()
        self._close()
        return 0

    def _listen(self, first: int | None) -> Session:
        config = self.config
        ports = list(range(config.first_port, config.last_port + 1))
        if first is not None:
            ports = [first, *(port for port in ports if port != first)]
        session = Session.listen(config.listen_host, ports, self._credentials)
        self._prepare(session)
        return session

    def _pause(self) -> float:
        if self._finish_at is not None:
            return 0.005
        peers = list(self.peers.values())
        calm = all(peer.settled for peer in peers) and not self.streams.ending
        return _IDLE_TICK if calm else _TICK

    def _hear(self) -> bool:
        """Take in what the runner says; False when it is gone."""
        try:
            data = self._carrier.recv(1 << 20)
        except OSError:
            return False
        if not data:
            return False
        for line in self._lines.feed(data):
            self._said(line)
        return True

    def _said(self, line: bytes) -> None:
        try:
            message = decode_for_link(line)
        except ValueError as error:
            self.note(f"the runner said what is no message: {error}")
            return
        match message:
            case SetPeers(peers=peers):
                self._set_peers(peers)
            case SetOutgoing(streams=streams):
                self.streams.want_outgoing(streams)
            case SetIncoming(streams=streams):
                self.streams.want_incoming(streams)
            case Finish(seconds=seconds):
                self._finish_at = time.monotonic() + seconds
                return
            case _:
                return
        self.node.take_in()
        self.streams.settle(self.peers)

    def _set_peers(self, peers: tuple[Peer, ...]) -> None:
        wanted = {peer.machine: peer for peer in peers}
        for machine in self.peers.keys() - wanted.keys():
            self._diallers.pop(machine).end()
            gone = self.peers.pop(machine)
            self._forget_links(gone)
            self.streams.source_ended(machine)
        for machine, peer in wanted.items():
            known = self.peers.get(machine)
            if known is not None:
                known.set_life(peer.run_id, peer.endpoints)
                continue
            link = PeerLink(self, machine, peer.run_id, peer.endpoints)
            self.peers[machine] = link
            self._diallers[machine] = Dialler(
                link,
                first=self.machine < machine,
                credentials=self._credentials,
                prepare=self._prepare,
                changed=self.changed,
                note=self.note,
            )
            self._changed.add(machine)

    def _tick(self) -> None:
        while self._jobs:
            self._jobs.popleft()()
        now = time.monotonic_ns()
        for peer in self.peers.values():
            peer.tick(now)
        for machine in list(self._changed):
            # First: what changes from here on is reported, or comes again.
            self._changed.discard(machine)
            if machine in self.peers:
                self._reports.peer(self.peers[machine].report())
        if self.streams.overdue:
            self.streams.settle(self.peers)
        self._reports.counts(self.streams, now)
        if now - self._looked_ns > _CREDENTIALS_NS:
            self._looked_ns = now
            self._look_at_credentials()
        if self._finish_at is not None:
            self._finish()

    def _finish(self) -> None:
        """Say good-bye once everything is acknowledged, or time is up."""
        assert self._finish_at is not None
        unsent = self.streams.unsent(lambda machine: self.peers[machine].left)
        if unsent and time.monotonic() < self._finish_at:
            return
        for peer in self.peers.values():
            peer.say_bye()
        self._reports.counts(self.streams, 0)
        self.tell(Finished(undelivered=unsent))
        self._ending = True

    def _look_soon(self) -> None:
        """A thread: acknowledgements that need not go at once go together, and what a connection
        still holds is pushed on."""
        pause: float | None = None
        while not self._ending:
            if self._soon.wait(pause):
                time.sleep(_SOON)
                self._soon.clear()
            now = time.monotonic_ns()
            due = [peer.soon(now) for peer in list(self.peers.values())]
            pause = min((ns / 1e9 for ns in due if ns is not None), default=None)

    # --- credentials ------------------------------------------------------------------------------

    def _certificate_time(self) -> int:
        if self._credentials is None:
            return 0
        try:
            return (self._credentials / "cert.pem").stat().st_mtime_ns
        except OSError:
            return 0

    def _look_at_credentials(self) -> None:
        """A renewed certificate: listen anew with it. Diallers read it when they dial."""
        stamp = self._certificate_time()
        listener = self._listener
        if stamp in (0, self._certificate) or listener is None:
            return
        self._certificate = stamp
        port = int(listener.endpoint.rpartition(":")[2])
        listener.close()
        for peer in list(self.peers.values()):
            peer.lost_session(listener, "the certificate was renewed")
        try:
            self._listener = self._listen(port)
        except CannotListen as error:
            self.tell(Failed(reason=str(error)))
            self._ending = True
            return
        if self._listener.endpoint != listener.endpoint:
            self.tell(Listening(endpoints=(self._listener.endpoint,)))

    def _close(self) -> None:
        self._ending = True
        self._soon.set()
        for dialler in self._diallers.values():
            dialler.end()
        self.streams.end()
        end = time.monotonic() + _END_SECONDS
        for dialler in self._diallers.values():
            dialler.join(end - time.monotonic())
        if self._listener is not None:
            self._listener.close()
