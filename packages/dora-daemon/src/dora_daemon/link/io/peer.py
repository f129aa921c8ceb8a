"""One peer: the session to it, what both sides know of each other, and its streams."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from dora_daemon.link.errors import WireError
from dora_daemon.link.io.messages import PeerChanged
from dora_daemon.link.io.session import Session
from dora_daemon.link.protocol import frames as wire
from dora_daemon.link.protocol import hello as greetings
from dora_daemon.link.protocol.clocks import ClockOffset
from dora_daemon.link.protocol.frames import FrameKind
from dora_daemon.link.protocol.handshake import Acquaintance
from dora_daemon.link.protocol.hello import Greeting
from dora_daemon.link.protocol.keepalive import Nudging
from dora_daemon.link.protocol.priority import Lane
from dora_daemon.link.streams.receiver import IncomingStream
from dora_daemon.link.streams.sender import OutgoingStream

_PING_NS = 1_000_000_000
_NOT_TRIED = "no connection has been tried yet"
_MESSAGES = (FrameKind.DATA, FrameKind.CHUNK, FrameKind.NEWS)


class Us(Protocol):
    """What a peer needs to know of the link."""

    machine: str
    run_id: str
    link: int

    def key_to(self, machine: str) -> str:
        """The key on which a machine's link listens to us."""

    def changed(self, peer: PeerLink) -> None:
        """Something that the runner is told may have changed."""

    def broken(self, peer: PeerLink, session: Session, why: str) -> None:
        """A put failed: `lost_session` is to be called, on another thread."""

    def look_soon(self) -> None:
        """`soon` is to be called in some milliseconds."""


class PeerLink:
    """The state of one peer. Frames come on Zenoh's threads, the rest from the main thread."""

    def __init__(self, us: Us, machine: str, run_id: str, endpoints: tuple[str, ...]) -> None:
        self.us = us
        self.machine = machine
        self.run_id = run_id
        self.endpoints = endpoints
        self.link = us.link
        self.session: Session | None = None
        self.endpoint = ""
        self.trouble = _NOT_TRIED
        self.left = False
        self.was_proven = False
        self.slow = False
        """A TCP connection to it took long: everything else will, too."""
        self.clock = ClockOffset()
        self.outgoing: dict[tuple[str, str], OutgoingStream] = {}
        self.incoming: dict[tuple[str, str], IncomingStream] = {}
        self.known = Acquaintance(us.link)
        self._puts: dict[Lane, Callable[[bytes], None]] = {}
        self._by_number: dict[int, IncomingStream] = {}
        self._sent_by_number: dict[int, OutgoingStream] = {}
        self._begun: dict[tuple[str, str], tuple[int, int, str]] = {}
        self._opened: dict[int, tuple[int, int, int, bool]] = {}
        self._said = 0
        self._difference: str | None = None
        """What the two sides' lists of streams do not agree about."""
        self._pinged_ns = 0
        self._lock = threading.RLock()
        self._acks: dict[int, int] = {}
        self._ack_lock = threading.Lock()
        self._nudging = Nudging()
        self._watched = False
        """Whether `soon` is going to look whether what was sent is acknowledged."""
        self.wanted = threading.Event()
        """Set while there is no session: the dialler's work."""
        self.wanted.set()
        self.moved = threading.Event()
        """Set when the coordinator knows of another life or address: to be dialled at once."""

    @property
    def their_link(self) -> int:
        return self.known.their_link

    @property
    def confirmed(self) -> bool:
        return self.known.confirmed

    @property
    def settled(self) -> bool:
        """Whether nothing is to be negotiated at the moment."""
        return self.left or (self.confirmed and self._difference is None)

    def uses_zid(self, zid: str) -> bool:
        """Whether the peer speaks over its session of this Zenoh id."""
        greeting = self.known.their_greeting
        return greeting is not None and greeting.zid == zid

    # --- lists ------------------------------------------------------------------------------------

    def set_life(self, run_id: str, endpoints: tuple[str, ...]) -> None:
        """What the coordinator knows of the peer."""
        with self._lock:
            if run_id != self.run_id or endpoints != self.endpoints:
                self.moved.set()
            self.endpoints = endpoints
            if run_id == self.run_id:
                return
            if self.session is not None and self.known.confirmed:
                self.lost_session(self.session, "its part was started anew")
            self.run_id = run_id
            self.left = False
            self.was_proven = False
            self.known.forget()
            self._pause()
            self._begun.clear()
        self.us.changed(self)

    def set_streams(
        self,
        outgoing: dict[tuple[str, str], OutgoingStream],
        incoming: dict[tuple[str, str], IncomingStream],
    ) -> None:
        """The streams to and from this peer, those that are usable."""
        with self._lock:
            self.outgoing = outgoing
            self.incoming = incoming
            self._sent_by_number = {s.number: s for s in outgoing.values()}
            for key in list(self._begun):
                if key not in incoming:
                    del self._begun[key]
            self._begin_streams()
            self._open_streams()
            if self.left:
                self._discard_all()
            self._difference = self.known.disagreement(self._greeting())
            self.known.say_again()
        self.us.changed(self)

    def connecting(self) -> None:
        """An endpoint is being dialled; what earlier attempts met stays the reason."""
        if self.trouble == _NOT_TRIED:
            self.trouble = "no answer yet"

    # --- the session ------------------------------------------------------------------------------

    def use(self, session: Session) -> None:
        """Speak over this session from now on: a new round."""
        with self._lock:
            if self.session is session:
                return
            try:
                puts = session.publishers(self.us.key_to(self.machine))
            except (ConnectionError, RuntimeError) as error:
                self.trouble = str(error)
                return
            self.session = session
            self._puts = dict(puts)
            self._pause()
            self.known.begin_round()
            self.wanted.clear()

    def lost_session(self, session: Session, why: str) -> None:
        """The session is gone, or of no more use."""
        with self._lock:
            if self.session is not session:
                return
            self.session = None
            self._puts = {}
            self.trouble = why
            self._pause()
            self.known.begin_round()
            self.wanted.set()
        self.us.changed(self)

    def _pause(self) -> None:
        self._opened.clear()
        if not self.left:
            for stream in self.outgoing.values():
                stream.pause()

    def send(self, lane: Lane, frame: bytes) -> bool:
        """Send a frame; False when there is no session."""
        session, puts = self.session, self._puts
        put = puts.get(lane)
        if put is None or session is None:
            return False
        try:
            put(frame)
        except ConnectionError as error:
            # Not here: whoever sends may hold a stream's lock. And it may have waited until there
            # was another session, whose puts must stay.
            puts.clear()
            self.us.broken(self, session, f"the connection broke: {error}")
            return False
        if lane is not Lane.CONTROL:
            self._nudging.sent_ns = time.monotonic_ns()
            if not self._watched:
                self._watched = True
                self.us.look_soon()
        return True

    def _control(self, kind: FrameKind, body: bytes = b"") -> None:
        head = wire.head(kind, self.link, self.known.their_link)
        self.send(Lane.CONTROL, head + body)

    # --- frames from the peer ---------------------------------------------------------------------

    def greeted(self, session: Session, head: wire.Head, greeting: Greeting) -> None:
        """The peer's greeting; the link has checked whose it is."""
        with self._lock:
            current = self.session
            if current is None or current.closed:
                self.use(session)
            new, _ = self.known.hear(head.sender, head.receiver, greeting, time.monotonic_ns())
            if new:
                self.left = False
                if current is not None and current is not session:
                    self.use(session)
                self._pause()
                self._by_number = {}
            if self.known.their_greeting is greeting:
                self._begin_streams()
                self._open_streams()
                self._difference = self.known.disagreement(self._greeting())
        self.us.changed(self)

    def _begin_streams(self) -> None:
        """Streams of the peer's greeting that have not begun in its present round."""
        greeting = self.known.their_greeting
        if greeting is None:
            return
        round_ = (self.known.their_link, greeting.round, greeting.run_id)
        for leaving in greeting.leaving:
            key = (leaving.node, leaving.output)
            stream = self.incoming.get(key)
            if stream is None:
                continue
            if self._begun.get(key) != round_ or stream.number != leaving.number:
                stream.begin_round(greeting.run_id, leaving)
                self._begun[key] = round_
                self.known.say_again()
            self._by_number[leaving.number] = stream

    def _open_streams(self) -> None:
        """Let streams go on that the peer's greeting expects."""
        greeting = self.known.their_greeting
        if greeting is None or not self.known.confirmed:
            return
        entering = {(e.node, e.output): e for e in greeting.entering}
        for key, stream in self.outgoing.items():
            entry = entering.get(key)
            if entry is None or entry.life != self.us.run_id:
                stream.pause()
                self._opened.pop(stream.number, None)
                continue
            pair = (self.known.their_link, self.known.round, greeting.round, entry.listening)
            if self._opened.get(stream.number) != pair:
                self._opened[stream.number] = pair
                stream.go_on(entry)

    def received(self, head: wire.Head, frame: bytes) -> None:
        """Any frame but a greeting, of the peer's present link. Raises WireError."""
        kind = head.kind
        self.known.heard_ns = time.monotonic_ns()
        if kind in _MESSAGES:
            self._message(head, frame)
        elif kind == FrameKind.TOGETHER:
            for inner in wire.read_together(frame):
                self._message(wire.read_head(inner), inner)
        elif kind == FrameKind.ACK:
            self._acknowledged(wire.read_acks(frame))
        elif kind == FrameKind.PING:
            asked, acks = wire.read_ping(frame)
            body = wire.pong_body(asked, time.monotonic_ns(), time.time_ns())
            self._control(FrameKind.PONG, body)
            self._acknowledged(acks)
        elif kind == FrameKind.PONG:
            self._ponged(wire.read_pong(frame))
        elif kind == FrameKind.BYE:
            self.leave()
        else:
            raise WireError(f"a frame of the unknown kind {kind}")

    def _message(self, head: wire.Head, frame: bytes) -> None:
        stream = self._by_number.get(head.stream)
        if stream is None:
            return
        if head.kind == FrameKind.DATA:
            stream.data(wire.read_data(frame))
        elif head.kind == FrameKind.CHUNK:
            stream.chunk(wire.read_chunk(frame))
        elif head.kind == FrameKind.NEWS:
            stream.tidings(wire.read_news(frame))
        else:
            raise WireError(f"a frame of kind {head.kind} among messages")

    def _ponged(self, pong: wire.Pong) -> None:
        now = time.monotonic_ns()
        self.clock.answered(
            pong.asked_ns,
            now,
            their_monotonic=pong.monotonic_ns,
            their_wall=pong.wall_ns,
            wall_less_monotonic=time.time_ns() - now,
        )
        self.us.changed(self)  # each second: a report shows the present round trip and clock

    def _acknowledged(self, acks: Sequence[tuple[int, int]]) -> None:
        for number, sequence in acks:
            stream = self._sent_by_number.get(number)
            if stream is not None:
                stream.acknowledged(sequence)

    def leave(self) -> None:
        """The peer's part has ended: nobody reads what we have for it."""
        with self._lock:
            self.left = True
            self._discard_all()
        self.us.changed(self)

    def _discard_all(self) -> None:
        for stream in self.outgoing.values():
            stream.discard()

    # --- what is due ------------------------------------------------------------------------------

    def stored(self, stream: IncomingStream, *, at_once: bool) -> bool:
        """Something is to be acknowledged; True when it waits for `flush_acks`."""
        with self._ack_lock:
            self._acks[stream.number] = stream.stored
        if at_once:
            self.flush_acks()
        return not at_once

    def flush_acks(self) -> None:
        """Tell the sender what is in the local queues."""
        with self._ack_lock:
            acks, self._acks = self._acks, {}
        if acks and self.confirmed:
            self._control(FrameKind.ACK, wire.acks_body(acks.items()))

    def soon(self, now: int) -> int | None:
        """What is due some milliseconds after messages came or went; ns until it is to be called
        again, None for when there is something new."""
        self.flush_acks()
        self._watched = False
        waiting = self.confirmed and any(s.waiting for s in list(self.outgoing.values()))
        again = self._nudging.due(now, waiting=waiting)
        if again is None:
            return None
        self._watched = True
        if again == 0:
            self._ping(now)
        return again

    def _ping(self, now: int) -> None:
        self._pinged_ns = now
        acks = [(s.number, s.stored) for s in list(self._by_number.values())]
        self._control(FrameKind.PING, wire.ping_body(time.monotonic_ns(), acks))

    def tick(self, now: int) -> None:
        """Greet and ping when it is time; give up a session that is silent."""
        session = self.session
        if session is not None and self.known.silent(now):
            self.lost_session(session, "the connection is silent")
        elif session is not None and self.known.unanswered(now):
            # It may have gone before we used it, or lead nowhere.
            self.lost_session(session, _no_answer(session))
        agreed = self._difference is None
        with self._lock:
            if self._puts and self.known.greeting_due(now, agreed=agreed):
                self._said += 1
                self.known.greeted(now)
                wants = not (agreed and self.known.confirmed)
                said = self._greeting().model_copy(
                    update={"said": self._said, "wants_answer": wants}
                )
                self._control(FrameKind.GREETING, greetings.encode(said))
        if self.confirmed and now - self._pinged_ns > _PING_NS:
            self._ping(now)

    def _greeting(self) -> Greeting:
        return Greeting(
            machine=self.us.machine,
            run_id=self.us.run_id,
            round=self.known.round,
            seen_round=self.known.their_round,
            zid=self.session.zid if self.session is not None else "",
            leaving=tuple(s.leaving() for s in self.outgoing.values()),
            entering=tuple(s.entering() for s in self.incoming.values()),
        )

    def say_bye(self) -> None:
        """Our part has ended."""
        with contextlib.suppress(RuntimeError):
            self._control(FrameKind.BYE)

    # --- what the runner is told ------------------------------------------------------------------

    def report(self) -> PeerChanged:
        """What is known of the peer now."""
        with self._lock:
            state, reason = self._state()
            clock = self.clock
            return PeerChanged(
                machine=self.machine,
                state=state,
                run_id=self.run_id,
                reason=reason,
                endpoint=self._their_endpoint(),
                slow=self.slow,
                rtt_us=None if clock.round_trip_ns is None else clock.round_trip_ns // 1000,
                clock_offset_us=None if clock.wall_ns is None else clock.wall_ns // 1000,
            )

    def _their_endpoint(self) -> str:
        """Where the peer was reached or tried last; where it listens if it came to us."""
        session = self.session
        if session is not None and session.endpoint in self.endpoints:
            return session.endpoint
        return self.endpoint or next(iter(self.endpoints), "")

    def _state(self) -> tuple[Literal["connecting", "proven", "lost", "left"], str]:
        if self.left:
            return "left", ""
        if self.session is None:
            return ("lost" if self.was_proven else "connecting"), self.trouble
        if not self.known.confirmed:
            return ("lost" if self.was_proven else "connecting"), _no_answer(self.session)
        if self._difference is not None:
            return "connecting", self._difference
        self.was_proven = True
        return "proven", ""


def _no_answer(session: Session) -> str:
    return f"{session.endpoint} is connected, but the link there does not answer"
