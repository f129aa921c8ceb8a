"""One peer: the session to it, the handshake, and the streams to and from it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dora_config.protocol.links import PeerReport
from dora_daemon.link.errors import WireError
from dora_daemon.link.io.session import MAX_LOW_LATENCY, LinkSession
from dora_daemon.link.peers.bulk_path import BulkPath
from dora_daemon.link.peers.low_latency import LowLatencyPath
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
from dora_daemon.link.protocol.keepalive import ACK_DELAY_NS, Keepalive
from dora_daemon.link.protocol.priority import Priority
from dora_daemon.link.protocol.status import PeerStatus, no_answer
from dora_daemon.link.protocol.stream_rounds import StreamRounds
from dora_daemon.link.streams.receiver import StreamReceiver
from dora_daemon.link.streams.sender import StreamSender

_monotonic_ns = time.monotonic_ns
_PING_NS = 1_000_000_000
"""Nanoseconds between two pings."""
_NO_ACK = (0, 0)
_PARTED = (IMAGE_KIND, int(FrameKind.IMAGES))
"""Kinds of frames that are sent in parts."""


class PeerSender:
    """Puts frames on the session in use or on the low-latency connection. Any thread."""

    def __init__(
        self,
        link_id: int,
        known: LinkHandshake,
        low_latency: LowLatencyPath,
        *,
        broken: Callable[[LinkSession, str], None],
        look_soon: Callable[[], None],
    ) -> None:
        """``broken``: a put failed on this session. ``look_soon``: schedule `soon` at once."""
        self.link_id = link_id
        self.session: LinkSession | None = None
        self._known = known
        self._low_latency = low_latency
        self._broken = broken
        self._look_soon = look_soon
        self._puts: dict[Priority, Callable[[bytes], None]] = {}
        self._path: BulkPath | None = None
        self._parted = 0
        """Number of the last frame that was sent in parts."""
        self._acks: dict[int, int] = {}
        self._ack_lock = threading.Lock()
        self._ack_due_ns = 0
        self._keepalive = Keepalive()
        self._watch_ns = 0
        """Time of the next call of `soon`; 0 if it is not scheduled."""

    @property
    def their_link(self) -> int:
        return self._known.their_link

    @property
    def ready(self) -> bool:
        """Whether a session is in use and its last put did not fail."""
        return bool(self._puts)

    def use(self, session: LinkSession, puts: Mapping[Priority, Callable[[bytes], None]]) -> None:
        """Send over this session from now on."""
        self.session = session
        self._puts = dict(puts)

    def forget(self) -> None:
        """Do not use the session any more."""
        self.session = None
        self._puts = {}

    # --- frames -----------------------------------------------------------------------------------

    def send(self, priority: Priority, frame: bytes, *, more: bool = False) -> bool:
        """Send a frame; return False without a session. ``more``: another one follows at once."""
        session, puts = self.session, self._puts
        put = puts.get(priority)
        if put is None or session is None:
            return False
        try:
            put(frame)
        except ConnectionError as error:
            # Not `lost_session`: the caller may hold a stream's lock, and this put may have waited
            # until another session was in use.
            puts.clear()
            self._broken(session, f"the connection broke: {error}")
            return False
        if priority is not Priority.CONTROL and not more:
            large = priority is not Priority.SMALL
            self._watch(self._keepalive.sent(time.monotonic_ns(), large=large))
        return True

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        """Wait until the path takes a piece of a large message; return its size in bytes.

        ``most``: of the piece; ``stop``: whether to return at once. Returns without a session, too.
        """
        session, theirs = self.session, self._known.their_hello
        if session is None or theirs is None:
            return most
        path = self._path
        if path is None or path.session is not session or path.zid != theirs.zid:
            self._path = path = BulkPath(session, theirs.zid)
        return path.room(most, lambda: stop() or self.session is not session)

    def control(self, kind: FrameKind, body: bytes = b"") -> None:
        """Send a control frame to the peer's present link."""
        head = frames.head(kind, self.link_id, self._known.their_link)
        self.send(Priority.CONTROL, head + body)

    def send_images(self, images: Sequence[bytes | memoryview], *, quick: bool) -> bool:
        """Send small messages, with an acknowledgement if one waits.

        ``quick``: over the low-latency connection if it takes them; only one thread sets it.
        """
        ack = self._take_ack() if self._acks else _NO_ACK
        head = frames.images_head(self.link_id, self._known.their_link, ack)
        return self._send_small(head, images, quick=quick)

    def send_image(
        self, stream: int, sequence: int, previous: int, sent_ns: int, flags: int, image: bytes
    ) -> bool:
        """Send one small message, as `send_images` with ``quick``."""
        ack = self._take_ack() if self._acks else _NO_ACK
        head = frames.single_image_head(
            self.link_id, self._known.their_link, ack, stream, sequence, previous, sent_ns, flags
        )
        session, nbytes = self._low_latency.session, len(head) + len(image)
        if session is None or nbytes > MAX_LOW_LATENCY:
            return self._send_small(head, (image,), quick=True)
        # As `_send_small`, in fewer instructions.
        put = self._low_latency.take(nbytes)
        if put is None:
            return self.send(Priority.SMALL, head + image)
        try:
            put(head + image)
        except ConnectionError as error:
            self._broken(session, f"the connection broke: {error}")
            return False
        return True

    def _send_small(
        self, head: bytes, images: Sequence[bytes | memoryview], *, quick: bool
    ) -> bool:
        session, nbytes = self._low_latency.session, len(head) + sum(map(len, images))
        put = self._low_latency.take(nbytes) if quick and session is not None else None
        if put is None or session is None:
            return self.send(Priority.SMALL, b"".join((head, *images)))
        try:
            if nbytes <= MAX_LOW_LATENCY:
                put(b"".join((head, *images)))
            else:
                link, peer = self.link_id, self._known.their_link
                self._parted = number = self._parted % 0xFFFFFFFF + 1
                most = MAX_LOW_LATENCY
                whole = images[0] if len(images) == 1 else b"".join(images)
                for part in frames.parts_of(number, head, whole, link, peer, most):
                    put(part)
        except ConnectionError as error:
            self._broken(session, f"the connection broke: {error}")
            return False
        return True

    # --- acknowledgements and timers --------------------------------------------------------------

    def stored(self, stream: StreamReceiver, *, at_once: bool) -> None:
        """Acknowledge what a stream has stored: at once, or together with others soon."""
        with self._ack_lock:
            if not self._acks:
                self._ack_due_ns = time.monotonic_ns() + ACK_DELAY_NS
            self._acks[stream.number] = stream.stored
        if at_once:
            self._flush_acks()
        else:
            self._watch(self._ack_due_ns)

    def _take_ack(self) -> tuple[int, int]:
        with self._ack_lock:
            return self._acks.popitem() if self._acks and self._known.confirmed else _NO_ACK

    def _flush_acks(self) -> None:
        with self._ack_lock:
            acks, self._acks = self._acks, {}
        if acks and self._known.confirmed:
            self.control(FrameKind.ACK, frames.acks_body(acks.items()))

    def _watch(self, due: int) -> None:
        """Schedule `soon`."""
        if not self._watch_ns or due < self._watch_ns:
            self._watch_ns = due
            self._look_soon()

    def soon(self, now: int, *, waiting: bool) -> tuple[int | None, bool]:
        """Send acknowledgements that are due.

        ``waiting``: whether messages are unacknowledged. Returns the nanoseconds until the next
        call, None until there are new messages; and whether a ping is due.
        """
        self._watch_ns = 0
        if self._acks and now >= self._ack_due_ns:
            self._flush_acks()
        again = self._keepalive.due(now, waiting=waiting)
        ping = again == 0
        if self._acks:
            left = max(0, self._ack_due_ns - now)
            again = left if again is None else min(again, left)
        if again is not None:
            self._watch_ns = now + again
        return again, ping


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
        self.outgoing: dict[tuple[str, str], StreamSender] = {}
        self.incoming: dict[tuple[str, str], StreamReceiver] = {}
        self.wanted = threading.Event()
        """Set without a session: the dialer then connects."""
        self.wanted.set()
        self.moved = threading.Event()
        """Set when run or address changed: the dialer connects at once."""
        self._host = host
        self.low_latency = LowLatencyPath(self._small_unacknowledged)
        self.sender = PeerSender(
            host.link_id,
            self.known,
            self.low_latency,
            broken=lambda session, why: host.broken(self, session, why),
            look_soon=host.look_soon,
        )
        self._parts = frames.FrameJoiner()
        self._parts_lock = threading.Lock()
        self._incoming_by_number: dict[int, StreamReceiver] = {}
        self._outgoing_by_number: dict[int, StreamSender] = {}
        self._rounds = StreamRounds()
        self._pinged_ns = 0
        self._bye_ns = 0
        """Time at which the end of this part was sent first; 0 before it."""
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
        """Whether it sends what our streams expect, or will begin with our next hello."""
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
            self._rounds.forget()
        self._host.changed(self)

    def found(self, endpoint: str) -> None:
        """Dial this address first from now on: the peer answered there."""
        with self._lock:
            if endpoint not in self.endpoints:
                self.endpoints = (endpoint, *self.endpoints)

    def set_streams(
        self,
        outgoing: dict[tuple[str, str], StreamSender],
        incoming: dict[tuple[str, str], StreamReceiver],
    ) -> None:
        """Set the usable streams to and from this peer."""
        with self._lock:
            self.outgoing = outgoing
            self.incoming = incoming
            self._outgoing_by_number = {s.number: s for s in outgoing.values()}
            self._rounds.keep(incoming)
            self._begin_streams()
            self._resume_streams()
            if self.status.left:
                self._discard_all()
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
        self._rounds.interrupt()
        if not self.status.left:
            for stream in self.outgoing.values():
                stream.pause()

    def _small_unacknowledged(self) -> int:
        """Return the bytes in flight of streams that may use the low-latency connection."""
        streams = self._outgoing_by_number.values()
        return sum(stream.window.bytes_out for stream in streams if not stream.sends_large)

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
                self._incoming_by_number = {}
            if self.known.their_hello is theirs:
                self._begin_streams()
                self._resume_streams()
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

    def _begin_streams(self) -> None:
        theirs = self.known.their_hello
        if theirs is None:
            return
        numbers = {source: stream.number for source, stream in self.incoming.items()}
        for leaving, begins in self._rounds.beginning(self.known.their_link, theirs, numbers):
            stream = self.incoming[leaving.node, leaving.output]
            if begins:
                stream.begin_round(theirs.run_id, leaving)
                self.known.hello_changed()
            self._incoming_by_number[leaving.number] = stream

    def _resume_streams(self) -> None:
        numbers = {source: stream.number for source, stream in self.outgoing.items()}
        for source, entry in self._rounds.resuming(self.known, self._host.run_id, numbers):
            if entry is None:
                self.outgoing[source].pause()
            else:
                self.outgoing[source].resume(entry)

    def receive(self, session: LinkSession, head: Head, frame: bytes) -> None:
        """Handle any frame but a hello of the peer's present link. Raises WireError."""
        kind, _, number, _, _ = head
        now = self.known.heard_ns = _monotonic_ns()
        if kind == IMAGE_KIND:
            acknowledged, upto, image = frames.read_image(frame)
            if (stream := self._incoming_by_number.get(number)) is not None:
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
            if (stream := self._incoming_by_number.get(number)) is not None:
                stream.chunk(sequence, offset, memoryview(frame)[CHUNK_AT:])
        elif kind == FrameKind.IMAGES:
            self._images(frame, now)
        elif kind == FrameKind.DATA:
            data = frames.read_data(frame)
            if (stream := self._incoming_by_number.get(number)) is not None:
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
            if (stream := self._incoming_by_number.get(number)) is not None:
                stream.lifecycle(event)
        elif kind == FrameKind.BYE:
            self._leave()
        elif kind == FrameKind.LOW_LATENCY:
            self._opened_low_latency(session, frame)
        else:
            raise WireError(f"frame of the unknown kind {kind}")

    def _images(self, frame: bytes, now: int) -> None:
        ack = frames.read_images_ack(frame)
        for source, images in frames.read_images(frame):
            stream = self._incoming_by_number.get(source)
            if stream is not None:
                stream.images(frame, images, now)
        if ack[0]:
            self._acknowledged((ack,), now)

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
        round_trip = self.clock.shortest_ns or 0
        for number, sequence in acks:
            stream = self._outgoing_by_number.get(number)
            if stream is not None:
                stream.acknowledged(sequence, now, round_trip)

    def _leave(self) -> None:
        """Handle the end of the peer's part: our messages have no reader any more."""
        with self._lock:
            self.status.left = True
            self._discard_all()
        self._host.changed(self)

    def _discard_all(self) -> None:
        for stream in self.outgoing.values():
            stream.discard()

    # --- timers ----------------------------------------------------------------------------------

    def soon(self, now: int) -> int | None:
        """Send acknowledgements and pings that are due.

        Returns the nanoseconds until the next call; None until there are new messages.
        """
        waiting = self.confirmed and any(s.waiting for s in list(self.outgoing.values()))
        again, ping = self.sender.soon(now, waiting=waiting)
        if ping:
            self._ping(now)
        return again

    def _ping(self, now: int) -> None:
        self._pinged_ns = now
        acks = [(s.number, s.stored) for s in list(self._incoming_by_number.values())]
        self.sender.control(FrameKind.PING, frames.ping_body(time.monotonic_ns(), acks))

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
            leaving=tuple(s.leaving() for s in self.outgoing.values()),
            entering=tuple(s.entering() for s in self.incoming.values()),
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
