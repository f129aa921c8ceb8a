"""What a peer does about sessions that come and go, without Zenoh, threads or a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from dora_daemon.link.io.peer import PeerLink
from dora_daemon.link.io.session import Session
from dora_daemon.link.protocol import frames as wire
from dora_daemon.link.protocol import hello as greetings
from dora_daemon.link.protocol.handshake import Acquaintance
from dora_daemon.link.protocol.hello import Greeting
from dora_daemon.link.protocol.priority import Lane

SECOND = 1_000_000_000
THEIR_LINK = 7


class FakeSession:
    """Notes what is sent; what is sent while it is broken fails."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.zid = endpoint
        self.closed = False
        self.sent: list[bytes] = []
        self.before_put: Callable[[], None] = lambda: None
        self.broken = False

    def publishers(self, key: str) -> dict[Lane, Callable[[bytes], None]]:
        return dict.fromkeys(Lane, self._put)

    def _put(self, frame: bytes) -> None:
        self.before_put()
        if self.broken:
            raise ConnectionError("closed")
        self.sent.append(frame)

    @property
    def session(self) -> Session:
        return cast(Session, self)


class FakeLink:
    """What a peer needs of the link."""

    machine = "a"
    run_id = "a-1"
    link = 3

    def __init__(self) -> None:
        self.lost: list[tuple[PeerLink, Session, str]] = []

    def key_to(self, machine: str) -> str:
        return machine

    def changed(self, peer: PeerLink) -> None:
        pass

    def look_soon(self) -> None:
        pass

    def broken(self, peer: PeerLink, session: Session, why: str) -> None:
        self.lost.append((peer, session, why))

    def carry_out(self) -> None:
        while self.lost:
            peer, session, why = self.lost.pop()
            peer.lost_session(session, why)


def peer() -> tuple[PeerLink, FakeLink]:
    link = FakeLink()
    return PeerLink(link, "b", "b-1", ("b:1",)), link


def greet(to: PeerLink, over: FakeSession, *, seen: int = 0) -> None:
    """The other side's greeting; ``seen``: our round, as it heard it."""
    said = Greeting(machine="b", run_id="b-1", round=1, seen_round=seen, said=1)
    receiver = FakeLink.link if seen else 0
    frame = wire.head(wire.FrameKind.GREETING, THEIR_LINK, receiver) + greetings.encode(said)
    to.greeted(over.session, wire.read_head(frame), said)


def test_a_put_that_fails_late_takes_nothing_from_the_session_that_came_meanwhile() -> None:
    us, link = peer()
    old, new = FakeSession("old"), FakeSession("new")
    us.use(old.session)

    def die() -> None:
        old.broken = True
        us.lost_session(old.session, "closed")
        us.use(new.session)

    old.before_put = die
    assert not us.send(Lane.LARGE, b"late")
    link.carry_out()
    assert us.session is new.session
    us.tick(SECOND)
    assert new.sent, "it does not greet over the new session"


def test_nothing_more_is_sent_over_a_session_that_failed() -> None:
    us, link = peer()
    session = FakeSession("s")
    us.use(session.session)
    session.broken = True
    assert not us.send(Lane.CONTROL, b"x")
    session.broken = False
    assert not us.send(Lane.CONTROL, b"x")
    link.carry_out()
    assert us.session is None
    assert us.wanted.is_set()
    us.use(session.session)  # the listening session serves many connections
    assert us.send(Lane.CONTROL, b"x")


def test_a_session_over_which_nobody_answers_is_given_up() -> None:
    us, _ = peer()
    dead = FakeSession("here:1")
    greet(us, dead)  # its connection closed before this was heard
    assert not us.wanted.is_set()
    for second in range(1, 8):
        us.tick(second * SECOND)
    assert us.session is dead.session
    us.tick(20 * SECOND)
    assert us.session is None
    assert us.wanted.is_set()
    assert us.trouble == "here:1 is connected, but the link there does not answer"


def test_a_session_over_which_the_peer_answers_is_kept() -> None:
    us, _ = peer()
    session = FakeSession("here:1")
    greet(us, session)
    us.tick(SECOND)
    greet(us, session, seen=us.known.round)
    us.known.heard_ns = 19 * SECOND
    us.tick(20 * SECOND)
    assert us.confirmed
    assert us.session is session.session


def test_how_long_an_answer_is_waited_for_begins_with_each_round() -> None:
    known = Acquaintance(1)
    assert not known.unanswered(SECOND)
    assert known.unanswered(20 * SECOND)
    known.begin_round()
    assert not known.unanswered(21 * SECOND)
