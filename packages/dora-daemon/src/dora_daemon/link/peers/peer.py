"""One peer: its run and addresses, the session to it, and the frames from it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from dora_config.protocol.links import PeerReport
from dora_daemon.link.errors import WireError
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.low_latency import LowLatencyPath
from dora_daemon.link.peers.peer_sender import PeerSender
from dora_daemon.link.peers.peer_streams import PeerStreams
from dora_daemon.link.protocol import frames, hello
from dora_daemon.link.protocol.clocks import ClockOffset
from dora_daemon.link.protocol.frames import (
    CHUNK_AT,
    CHUNK_KIND,
    IMAGE_KIND,
    PART_KIND,
    FrameKind,
    Head,
)
from dora_daemon.link.protocol.handshake import LinkHandshake
from dora_daemon.link.protocol.hello import LinkHello
from dora_daemon.link.protocol.priority import Priority
from dora_daemon.link.protocol.status import PeerStatus, no_answer
from dora_daemon.link.protocol.stream_rounds import Source
from dora_daemon.link.streams.receiver import StreamReceiver
from dora_daemon.link.streams.sender import StreamSender

_monotonic_ns = time.monotonic_ns
_PING_NS = 1_000_000_000
"""Nanoseconds between two pings."""
_PARTED = (IMAGE_KIND, int(FrameKind.IMAGES))
"""Kinds of frames that are sent in parts."""


class PeerHost(Protocol):
    """Interface of a link for its peers."""

    machine: str
    run_id: str
    link_id: int

    @property
    def low_latency_port(self) -> int:
        """Port that it listens on for low-latency connections; 0 without one."""

    def key_to(self, machine: str) -> str:
        """Return the key on which a machine's link receives our frames."""

    def changed(self, peer: PeerLink) -> None:
        """The report of this peer may have changed."""

    def broken(self, peer: PeerLink, session: LinkSession, why: str) -> None:
        """A put failed: call `lost_session` on the main thread."""

    def look_soon(self) -> None:
        """Call `soon` now."""


class PeerLink:
    """The state of one peer. Frames arrive on Zenoh's threads, other calls on the main thread."""

    def __init__(
        self, host: PeerHost, machine: str, run_id: str, endpoints: tuple[str, ...]
    ) -> None:
        self.machine = machine
        self.run_id = run_id
        self.endpoints = endpoints
        self.plain = False
        """Whether the peer listens without TLS."""
        self.endpoint = ""
        """Address dialed last."""
        self.slow = False
        """Whether a TCP connection to the peer took long."""
        self.clock = ClockOffset()
        self.status = PeerStatus()
        self.known = LinkHandshake(host.link_id)
        self.streams = PeerStreams()
        self.wanted = threading.Event()
        """Set without a session: the dialer then connects."""
        self.wanted.set()
        self.moved = threading.Event()
        """Set when run or address changed: the dialer connects at once."""
        self._host = host
        self.low_latency = LowLatencyPath(self.streams.small_unacknowledged)
        self.sender = PeerSender(
            host.link_id,
            self.known,
            self.low_latency,
            broken=lambda session, why: host.broken(self, session, why),
            look_soon=host.look_soon,
        )
        self._parts = frames.FrameJoiner()
        self._parts_lock = threading.Lock()
        self._pinged_ns = 0
        self._bye_ns = 0
        """Time of the first BYE frame; 0 if none was sent."""
        self._bye_received = False
        self._lock = threading.RLock()

    @property
    def session(self) -> LinkSession | None:
        """The session that is in use; None without one."""
        return self.sender.session

    @property
    def confirmed(self) -> bool:
        return self.known.confirmed

    @property
    def settled(self) -> bool:
        """Whether no negotiation is in progress."""
        return self.status.left or (self.known.seen and self.status.difference is None)

    @property
    def informed(self) -> bool:
        """Whether the peer has received which streams we expect, or will with our next hello."""
        return self.status.left or self.session is None or self.known.seen

    def connected_by(self, session: LinkSession, zid: str) -> bool:
        """Return whether our session is connected to the peer's session of this Zenoh id."""
        theirs = self.known.their_hello
        if self.session is session and theirs is not None and theirs.zid == zid:
            return True
        return self.low_latency.uses(session, zid)

    # --- run, address and streams -----------------------------------------------------------------

    def set_run(self, run_id: str, endpoints: tuple[str, ...]) -> None:
        """Set the peer's run and addresses; reports of an earlier run are ignored."""
        with self._lock:
            if run_id < self.run_id:
                return
            if run_id != self.run_id or endpoints != self.endpoints:
                self.moved.set()
            self.endpoints = endpoints
            if run_id == self.run_id:
                return
            if self.session is not None and self.known.confirmed:
                self.lost_session(self.session, "its part was started anew")
            self.run_id = run_id
            self.status.new_run()
            self.known.forget()
            self._pause()
            self.streams.forget_run()
        self._host.changed(self)

    def found(self, endpoint: str) -> None:
        """Dial this address first from now on: the peer answered there."""
        with self._lock:
            if endpoint not in self.endpoints:
                self.endpoints = (endpoint, *self.endpoints)

    def set_streams(
        self,
        outgoing: dict[Source, StreamSender],
        incoming: dict[Source, StreamReceiver],
    ) -> None:
        """Set the usable streams to and from this peer."""
        with self._lock:
            self.streams.set(outgoing, incoming)
            self._begin_rounds()
            if self.status.left:
                self.streams.discard()
            self.status.difference = self.known.disagreement(self._hello())
            self.known.hello_changed()
        self._host.changed(self)

    # --- session ----------------------------------------------------------------------------------

    def use(self, session: LinkSession) -> None:
        """Send over this session from now on, in a new round."""
        with self._lock:
            if self.session is session:
                return
            try:
                puts = session.publishers(self._host.key_to(self.machine))
            except (ConnectionError, RuntimeError) as error:
                self.status.trouble = str(error)
                return
            self.sender.use(session, puts)
            self.clock.new_connection()
            self._pause()
            self.known.begin_round()
            self.wanted.clear()

    def lost_session(self, session: LinkSession, why: str) -> None:
        """Handle the loss of a session; one that is not in use is ignored."""
        with self._lock:
            if self.low_latency.drop(session):
                self._pause()
                self.known.begin_round()
                return
            if self.session is not session:
                return
            self.sender.forget()
            self.status.trouble = why
            self._pause()
            self.known.begin_round()
            self.wanted.set()
        self._host.changed(self)

    def _pause(self) -> None:
        self.streams.interrupt(pause=not self.status.left)

    def open_low_latency(self, session: LinkSession, *, wants_answer: bool) -> None:
        """Send a LOW_LATENCY frame. Raises ConnectionError."""
        head = frames.head(FrameKind.LOW_LATENCY, self._host.link_id, self.known.their_link)
        body = frames.low_latency_body(session.zid, wants_answer=wants_answer)
        session.publishers(self._host.key_to(self.machine))[Priority.SMALL](head + body)

    # --- frames from the peer ---------------------------------------------------------------------

    def receive_hello(
        self, session: LinkSession, sender: int, receiver: int, theirs: LinkHello
    ) -> None:
        """Handle the hello of the peer's link ``sender`` for our link ``receiver``."""
        with self._lock:
            current = self.session
            if current is None or current.closed:
                self.use(session)
            self.status.incompatible = None
            before = self.known.their_link
            new, _ = self.known.receive(sender, receiver, theirs, time.monotonic_ns())
            if sender != before:
                # Another process of the peer's link: this connection ends at the earlier one.
                self.low_latency.forget()
            if new:
                self.status.left = False
                if current is not None and current is not session:
                    self.use(session)
                self._pause()
                self.streams.forget_numbers()
            if self.known.their_hello is theirs:
                self._begin_rounds()
                self.status.difference = self.known.disagreement(self._hello())
        self._host.changed(self)

    def refuse(self, session: LinkSession, problem: str, *, wants_answer: bool) -> None:
        """Handle the hello of an incompatible link; answer with ours, which names our version."""
        with self._lock:
            new = self.status.incompatible != problem
            self.status.incompatible = problem
        if wants_answer:
            head = frames.head(FrameKind.HELLO, self._host.link_id, 0)
            with contextlib.suppress(ConnectionError, RuntimeError):
                puts = session.publishers(self._host.key_to(self.machine))
                puts[Priority.CONTROL](head + hello.encode(self._hello()))
        if new:
            self._host.changed(self)

    def _begin_rounds(self) -> None:
        if self.streams.begin_rounds(self.known, self._host.run_id):
            self.known.hello_changed()

    def receive(self, session: LinkSession, head: Head, frame: bytes) -> None:
        """Handle any frame but a hello of the peer's present link. Raises WireError."""
        kind, _, number, _, _ = head
        now = self.known.heard_ns = _monotonic_ns()
        incoming = self.streams.incoming_by_number
        if kind == IMAGE_KIND:
            acknowledged, upto, image = frames.read_image(frame)
            if (stream := incoming.get(number)) is not None:
                stream.images(frame, (image,), now)
            if acknowledged:
                self._acknowledged(((acknowledged, upto),), now)
        elif kind == PART_KIND:
            with self._parts_lock:
                whole = self._parts.add(frame)
            if whole and whole[0] in _PARTED:
                self.receive(session, frames.read_head(whole), whole)
        elif kind == CHUNK_KIND:
            sequence, offset = frames.read_chunk(frame)
            if (stream := incoming.get(number)) is not None:
                stream.chunk(sequence, offset, memoryview(frame)[CHUNK_AT:])
        elif kind == FrameKind.IMAGES:
            ack = frames.read_images_ack(frame)
            self.streams.images(frame, now)
            if ack[0]:
                self._acknowledged((ack,), now)
        elif kind == FrameKind.DATA:
            data = frames.read_data(frame)
            if (stream := incoming.get(number)) is not None:
                stream.data(data)
        elif kind == FrameKind.ACK:
            self._acknowledged(frames.read_acks(frame), now)
        elif kind == FrameKind.PING:
            sent_ns, acks = frames.read_ping(frame)
            self.sender.control(FrameKind.PONG, frames.pong_body(sent_ns, now, time.time_ns()))
            self._acknowledged(acks, now)
        elif kind == FrameKind.PONG:
            self._ponged(frames.read_pong(frame), now)
        elif kind == FrameKind.LIFECYCLE:
            event = frames.read_lifecycle(frame)
            if (stream := incoming.get(number)) is not None:
                stream.lifecycle(event)
        elif kind == FrameKind.BYE:
            self._leave()
        elif kind == FrameKind.LOW_LATENCY:
            self._opened_low_latency(session, frame)
        else:
            raise WireError(f"frame of the unknown kind {kind}")

    def _opened_low_latency(self, session: LinkSession, frame: bytes) -> None:
        """Send small messages over this session from now on, because the peer receives over it."""
        wants_answer, zid = frames.read_low_latency(frame)
        if wants_answer:
            with contextlib.suppress(ConnectionError):
                self.open_low_latency(session, wants_answer=False)
        with self._lock:
            earlier = self.low_latency.session is not None
            replaced = earlier and not self.low_latency.uses(session, zid)
            put = session.publishers(self._host.key_to(self.machine))[Priority.SMALL]
            self.low_latency.use(session, zid, put)
            if replaced:
                # The earlier connection may have been dead for a while: send again what it carried.
                self._pause()
                self.known.begin_round()

    def _ponged(self, pong: frames.Pong, now: int) -> None:
        if self._bye_ns and pong.ping_sent_ns >= self._bye_ns:
            self._bye_received = True
        self.clock.answered(
            pong.ping_sent_ns,
            now,
            their_monotonic=pong.monotonic_ns,
            their_wall=pong.wall_ns,
            wall_less_monotonic=time.time_ns() - now,
        )
        self._host.changed(self)

    def _acknowledged(self, acks: Sequence[tuple[int, int]], now: int) -> None:
        self.streams.acknowledged(acks, now, self.clock.shortest_ns or 0)

    def _leave(self) -> None:
        """Handle the end of the peer's part: drop our messages, which have no readers."""
        with self._lock:
            self.status.left = True
            self.streams.discard()
        self._host.changed(self)

    # --- timers ----------------------------------------------------------------------------------

    def soon(self, now: int) -> int | None:
        """Send acknowledgements and pings that are due.

        Returns the nanoseconds until the next call; None until there are new messages.
        """
        again, ping = self.sender.soon(now, waiting=self.confirmed and self.streams.waiting)
        if ping:
            self._ping(now)
        return again

    def _ping(self, now: int) -> None:
        self._pinged_ns = now
        body = frames.ping_body(time.monotonic_ns(), self.streams.stored())
        self.sender.control(FrameKind.PING, body)

    def tick(self, now: int) -> None:
        """Send hello and ping when due; drop a session without an answer."""
        session = self.session
        if session is not None and self.known.silent(now):
            self.lost_session(session, "the connection is silent")
        elif session is not None and self.known.unanswered(now):
            # The connection may have gone before it was used.
            self.lost_session(session, no_answer(session.endpoint))
        agreed = self.status.difference is None
        with self._lock:
            if self.sender.ready and self.known.hello_due(now, agreed=agreed):
                self.known.hello_sent(now)
                wants = not (agreed and self.known.seen)
                ours = self._hello().model_copy(update={"wants_answer": wants})
                self.sender.control(FrameKind.HELLO, hello.encode(ours))
        if self.confirmed and now - self._pinged_ns > _PING_NS:
            self._ping(now)

    def _hello(self) -> LinkHello:
        theirs = self.known.their_hello
        return LinkHello(
            count=self.known.count,
            seen_count=0 if theirs is None else theirs.count,
            machine=self._host.machine,
            run_id=self._host.run_id,
            round=self.known.round,
            seen_round=self.known.their_round,
            zid=self.session.zid if self.session is not None else "",
            low_latency_port=self._host.low_latency_port,
            leaving=self.streams.leaving(),
            entering=self.streams.entering(),
        )

    def say_bye(self) -> bool:
        """Send that our part has ended; return whether the peer has received it or cannot.

        Repeat it until then: Zenoh discards what it has not written when the session is closed.
        A peer that has ended receives it too: it may still wait for our pong to its own, and would
        report a lost connection.
        """
        if self._bye_received or self.session is None or not self.confirmed:
            return True
        now = time.monotonic_ns()
        self._bye_ns = self._bye_ns or now
        with contextlib.suppress(RuntimeError):
            self.sender.control(FrameKind.BYE)
            self._ping(now)
        return False

    def report(self) -> PeerReport:
        """Return the peer's state for the runner."""
        with self._lock:
            session = self.session
            endpoint = None if session is None else session.endpoint
            state, reason = self.status.state(endpoint, confirmed=self.known.confirmed)
            if endpoint not in self.endpoints:
                # The peer connected to us: report where it listens.
                endpoint = self.endpoint or next(iter(self.endpoints), None)
            clock = self.clock
            return PeerReport(
                machine=self.machine,
                state=state,
                run_id=self.run_id,
                reason=reason or None,
                endpoint=endpoint,
                slow=self.slow,
                rtt_us=None if clock.round_trip_ns is None else clock.round_trip_ns // 1000,
                clock_offset_us=None if clock.wall_ns is None else clock.wall_ns // 1000,
            )
