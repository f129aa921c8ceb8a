"""Sessions and pings of a peer, without Zenoh, threads and a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import pytest

from dora_daemon.link.errors import WireError
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.protocol import frames
from dora_daemon.link.protocol.frames import FrameKind
from dora_daemon.link.protocol.hello import LinkHello
from dora_daemon.link.protocol.keepalive import MAX_NS
from dora_daemon.link.protocol.priority import Priority
from dora_daemon.link.streams.receiver import StreamReceiver
from dora_daemon.link.streams.sender import StreamSender

SECOND = 1_000_000_000
THEIR_LINK = 7


class FakeSession:
    """Keeps what is sent; fails while `broken`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.zid = endpoint
        self.closed = False
        self.sent: list[bytes] = []
        self.before_put: Callable[[], None] = lambda: None
        self.broken = False

    def publishers(self, key: str) -> dict[Priority, Callable[[bytes], None]]:
        return dict.fromkeys(Priority, self._put)

    def _put(self, frame: bytes) -> None:
        self.before_put()
        if self.broken:
            raise ConnectionError("closed")
        self.sent.append(frame)

    @property
    def session(self) -> LinkSession:
        return cast(LinkSession, self)


class FakeHost:
    """A link with one peer."""

    machine = "a"
    run_id = "a-1"
    link_id = 3
    low_latency_port = 0
    woken = 0

    def __init__(self) -> None:
        self.lost: list[tuple[PeerLink, LinkSession, str]] = []

    def key_to(self, machine: str) -> str:
        return machine

    def changed(self, peer: PeerLink) -> None:
        pass

    def look_soon(self) -> None:
        self.woken += 1

    def broken(self, peer: PeerLink, session: LinkSession, why: str) -> None:
        self.lost.append((peer, session, why))

    def carry_out(self) -> None:
        while self.lost:
            peer, session, why = self.lost.pop()
            peer.lost_session(session, why)


def peer() -> tuple[PeerLink, FakeHost]:
    link = FakeHost()
    return PeerLink(link, "b", "b-1", ("b:1",)), link


def hello_of(to: PeerLink, over: FakeSession, *, seen: int = 0) -> None:
    """Receive the peer's hello; ``seen``: our round in it."""
    sent_hello = LinkHello(machine="b", run_id="b-1", round=1, seen_round=seen, count=1)
    to.receive_hello(over.session, THEIR_LINK, FakeHost.link_id if seen else 0, sent_hello)


def receive(to: PeerLink, over: FakeSession, frame: bytes) -> None:
    to.receive(over.session, frames.read_head(frame), frame)


def test_a_late_failure_of_a_put_leaves_the_next_session_alone() -> None:
    us, link = peer()
    old, new = FakeSession("old"), FakeSession("new")
    us.use(old.session)

    def die() -> None:
        old.broken = True
        us.lost_session(old.session, "closed")
        us.use(new.session)

    old.before_put = die
    assert not us.sender.send(Priority.LARGE, b"late")
    link.carry_out()
    assert us.session is new.session
    us.tick(SECOND)
    assert new.sent, "no hello over the new session"


def test_a_failed_session_is_not_used_again() -> None:
    us, link = peer()
    session = FakeSession("s")
    us.use(session.session)
    session.broken = True
    assert not us.sender.send(Priority.CONTROL, b"x")
    session.broken = False
    assert not us.sender.send(Priority.CONTROL, b"x")
    link.carry_out()
    assert us.session is None
    assert us.wanted.is_set()
    us.use(session.session)  # the listening session serves many connections
    assert us.sender.send(Priority.CONTROL, b"x")


def test_a_session_without_an_answer_is_dropped() -> None:
    us, _ = peer()
    dead = FakeSession("here:1")
    hello_of(us, dead)  # the connection closed before this arrived
    assert not us.wanted.is_set()
    for second in range(1, 8):
        us.tick(second * SECOND)
    assert us.session is dead.session
    us.tick(20 * SECOND)
    assert us.session is None
    assert us.wanted.is_set()
    assert us.status.trouble == "here:1 is connected, but the link there does not answer"


def test_a_session_with_an_answer_is_kept() -> None:
    us, _ = peer()
    session = FakeSession("here:1")
    hello_of(us, session)
    us.tick(SECOND)
    hello_of(us, session, seen=us.known.round)
    us.known.heard_ns = 19 * SECOND
    us.tick(20 * SECOND)
    assert us.confirmed
    assert us.session is session.session


@dataclass
class FakeStream:
    waiting: int = 0

    def pause(self) -> None: ...


def test_a_peer_that_does_not_acknowledge_is_pinged_until_it_does() -> None:
    host, session, stream = FakeHost(), FakeSession("s"), FakeStream()
    peer = PeerLink(host, "b", "b-1", ())
    peer.use(session.session)
    peer.known.confirmed = True
    peer.streams.outgoing = {("n", "o"): cast(StreamSender, stream)}
    assert peer.soon(time.monotonic_ns()) is None
    assert peer.sender.send(Priority.LARGE, frames.head(FrameKind.CHUNK, 7, 8))
    assert peer.sender.send(Priority.LARGE, frames.head(FrameKind.CHUNK, 7, 8))
    assert host.woken == 1
    stream.waiting = 1
    now = time.monotonic_ns()
    for _ in range(6):
        left = peer.soon(now)
        assert left is not None
        now += left
    pings = [frame for frame in session.sent if frame[0] == FrameKind.PING]
    assert len(pings) == 3
    stream.waiting = 0
    assert peer.soon(now + MAX_NS) is None
    assert len(session.sent) == 2 + 3
    # Later messages are watched as well.
    assert peer.sender.send(Priority.SMALL, frames.head(FrameKind.DATA, 7, 8))
    assert host.woken == 2


def with_low_latency() -> tuple[PeerLink, FakeHost, FakeSession, FakeSession]:
    """Return a confirmed peer with its ordinary and its low-latency session."""
    us, link = peer()
    ordinary, quick = FakeSession("ordinary"), FakeSession("quick")
    hello_of(us, ordinary, seen=2)
    receive(us, quick, low_latency_frame())
    return us, link, ordinary, quick


def low_latency_frame(zid: str = "their zid") -> bytes:
    head = frames.head(FrameKind.LOW_LATENCY, THEIR_LINK, FakeHost.link_id)
    return head + frames.low_latency_body(zid, wants_answer=True)


def sent_over(*sessions: FakeSession) -> list[list[int]]:
    """Return the kinds of the frames that were sent over each session, and forget them."""
    kinds = [[frame[0] for frame in session.sent] for session in sessions]
    for session in sessions:
        session.sent.clear()
    return kinds


def test_small_messages_go_over_the_low_latency_connection() -> None:
    us, _, ordinary, quick = with_low_latency()
    assert us.confirmed
    assert sent_over(ordinary, quick) == [[], [FrameKind.LOW_LATENCY]]
    assert us.sender.send_image(1, 5, 4, 0, 0, b"image")
    assert us.sender.send_images([b"head", b"image"], quick=True)
    assert sent_over(ordinary, quick) == [[], [FrameKind.IMAGE, FrameKind.IMAGES]]
    assert us.sender.send_images([b"head", b"image"], quick=False)
    assert sent_over(ordinary, quick) == [[FrameKind.IMAGES], []]
    assert us.sender.send_image(1, 6, 5, 0, 0, bytes(60_000))
    assert sent_over(ordinary, quick) == [[], [FrameKind.PART, FrameKind.PART]]


def test_a_lost_low_latency_connection_begins_a_round_over_the_ordinary_one() -> None:
    us, link, ordinary, quick = with_low_latency()
    sent_over(ordinary, quick)
    quick.broken = True
    assert not us.sender.send_image(1, 5, 4, 0, 0, b"image")
    link.carry_out()
    assert us.session is ordinary.session
    assert not us.confirmed, "the messages in flight would never be sent again"
    us.tick(SECOND)
    assert us.sender.send_image(1, 6, 5, 0, 0, b"image")
    assert sent_over(ordinary, quick) == [[FrameKind.HELLO, FrameKind.IMAGE], []]


def test_another_low_latency_connection_repeats_what_the_earlier_one_carried() -> None:
    """Both belong to one listening session; the earlier one may be half open."""
    us, _, _, quick = with_low_latency()
    receive(us, quick, low_latency_frame())
    assert us.confirmed, "the same connection"
    receive(us, quick, low_latency_frame("another zid"))
    assert not us.confirmed
    assert us.low_latency.uses(quick.session, "another zid")


def test_another_link_process_has_another_low_latency_connection() -> None:
    us, _, ordinary, quick = with_low_latency()
    theirs = LinkHello(machine="b", run_id="b-1", round=1, count=1)
    us.receive_hello(ordinary.session, THEIR_LINK + 1, 0, theirs)
    sent_over(ordinary, quick)
    assert us.sender.send_image(1, 5, 4, 0, 0, b"image")
    assert sent_over(ordinary, quick) == [[FrameKind.IMAGE], []]


def test_a_chunk_without_data_is_named() -> None:
    us, _ = peer()
    begin = frames.head(FrameKind.CHUNK, THEIR_LINK, FakeHost.link_id, stream=3)
    with pytest.raises(WireError, match="CHUNK frame of 38 bytes"):
        receive(us, FakeSession("s"), frames.chunk_head(begin, 5, 0))


class Images:
    """Keeps the images that a stream receives."""

    number = 3

    def __init__(self) -> None:
        self.received: list[bytes] = []

    def images(self, frame: bytes, images: Iterable[frames.Image], _now: int) -> None:
        self.received += [frame[start:end] for *_, start, end in images]


@pytest.mark.parametrize("most", [1000, 60])
def test_small_messages_reach_their_stream_whole_and_in_parts(most: int) -> None:
    us, _ = peer()
    session, stream = FakeSession("s"), Images()
    us.streams.incoming_by_number[3] = cast(StreamReceiver, stream)
    ours, body = FakeHost.link_id, bytes(80)
    alone = frames.single_image_head(THEIR_LINK, ours, (0, 0), 3, 2, 1, 0, 0) + body
    several = frames.images_head(THEIR_LINK, ours, (0, 0))
    several += frames.image_head(3, 3, 2, 0, 0, len(body)) + body
    for whole in (alone, several):
        for part in [whole] if most > 999 else frames.parts_of(1, b"", whole, 7, ours, most):
            receive(us, session, part)
        assert stream.received == [body]
        stream.received.clear()


def test_only_small_messages_come_in_parts() -> None:
    us, _ = peer()
    bye = frames.head(FrameKind.BYE, THEIR_LINK, FakeHost.link_id)
    for part in frames.parts_of(1, b"", bye, THEIR_LINK, FakeHost.link_id, 30):
        receive(us, FakeSession("s"), part)
    assert not us.status.left
