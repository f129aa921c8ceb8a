"""When a connection is written to for the sake of what it still holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

from dora_daemon.link.io.peer import PeerLink
from dora_daemon.link.io.session import Session
from dora_daemon.link.protocol import frames as wire
from dora_daemon.link.protocol.keepalive import FIRST_NS, LARGEST_NS, Nudging
from dora_daemon.link.protocol.priority import Lane
from dora_daemon.link.streams.sender import OutgoingStream

MS = 1_000_000


def test_nothing_is_due_while_all_is_acknowledged() -> None:
    nudging = Nudging()
    nudging.sent_ns = 100 * MS
    assert nudging.due(105 * MS, waiting=False) is None
    assert nudging.due(10_000 * MS, waiting=False) is None


def test_soon_at_first_then_more_rarely() -> None:
    nudging = Nudging()
    nudging.sent_ns = start = 100 * MS
    assert nudging.due(start + 1 * MS, waiting=True) == FIRST_NS - 1 * MS
    times, now = [], start
    for _ in range(10):
        left = nudging.due(now, waiting=True)
        assert left is not None
        if left:
            now += left
        else:
            times.append(now)
    between = [later - earlier for earlier, later in zip([start, *times], times, strict=False)]
    assert between == [FIRST_NS * 2**n for n in range(len(between))]
    for _ in range(40):
        left = nudging.due(now, waiting=True)
        assert left is not None
        assert left <= LARGEST_NS
        now += left


def test_what_is_sent_meanwhile_takes_it_along() -> None:
    nudging = Nudging()
    now = 100 * MS
    for _ in range(50):
        nudging.sent_ns = now
        assert nudging.due(now + FIRST_NS // 2, waiting=True) == FIRST_NS // 2
        now += FIRST_NS // 2


def test_another_message_begins_anew() -> None:
    nudging = Nudging()
    nudging.sent_ns = now = 100 * MS
    for _ in range(20):
        now += nudging.due(now, waiting=True) or 0
    nudging.sent_ns = now
    assert nudging.due(now, waiting=True) == FIRST_NS


class FakeSession:
    """Keeps what is put."""

    closed = False
    endpoint = "127.0.0.1:1"
    zid = "z"

    def __init__(self) -> None:
        self.put: list[tuple[Lane, int]] = []

    def publishers(self, key: str) -> dict[Lane, Callable[[bytes], None]]:
        return {lane: partial(self._take, lane) for lane in Lane}

    def _take(self, lane: Lane, frame: bytes) -> None:
        self.put.append((lane, wire.read_head(frame).kind))


class FakeUs:
    machine, run_id, link = "a", "a-1", 7
    woken = 0

    def key_to(self, machine: str) -> str:
        return machine

    def changed(self, peer: PeerLink) -> None: ...

    def broken(self, peer: PeerLink, session: object, why: str) -> None: ...

    def look_soon(self) -> None:
        self.woken += 1


@dataclass
class FakeStream:
    waiting: int = 0

    def pause(self) -> None: ...


def test_a_peer_that_does_not_acknowledge_is_pinged_until_it_does() -> None:
    us, session, stream = FakeUs(), FakeSession(), FakeStream()
    peer = PeerLink(us, "b", "b-1", ())
    peer.use(cast(Session, session))
    peer.known.confirmed = True
    peer.outgoing = {("n", "o"): cast(OutgoingStream, stream)}
    assert peer.soon(time.monotonic_ns()) is None
    assert peer.send(Lane.LARGE, wire.head(wire.FrameKind.CHUNK, 7, 8))
    assert peer.send(Lane.LARGE, wire.head(wire.FrameKind.CHUNK, 7, 8))
    assert us.woken == 1
    stream.waiting = 1
    now = time.monotonic_ns()
    for _ in range(6):
        left = peer.soon(now)
        assert left is not None
        now += left
    pings = [kind for lane, kind in session.put if lane is Lane.CONTROL]
    assert pings == [wire.FrameKind.PING] * 3
    stream.waiting = 0
    assert peer.soon(now + LARGEST_NS) is None
    assert len(session.put) == 2 + 3
    # What is sent later is watched as well.
    assert peer.send(Lane.SMALL, wire.head(wire.FrameKind.DATA, 7, 8))
    assert us.woken == 2
