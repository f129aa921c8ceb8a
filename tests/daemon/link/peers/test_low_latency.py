"""Which frames go over the low-latency connection."""

from __future__ import annotations

from typing import cast

from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.low_latency import (
    MAX_UNACKNOWLEDGED,
    LowLatencyPath,
    low_latency_ports,
)
from dora_daemon.link.protocol.frames import MAX_PARTED

SESSION, OTHER = cast(LinkSession, object()), cast(LinkSession, object())


class Peer:
    """A path, and the bytes in flight."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.asked = 0
        self.path = LowLatencyPath(self._unacknowledged)
        self.path.use(SESSION, "zid", lambda frame: None)

    def _unacknowledged(self) -> int:
        self.asked += 1
        return self.in_flight

    def takes(self, nbytes: int) -> bool:
        return self.path.take(nbytes) is not None


def test_low_latency_connections_use_the_second_half_of_the_ports() -> None:
    remembered_first = [7458, *range(7450, 7458), 7459]
    assert low_latency_ports(remembered_first) == [7459, 7458, 7457, 7456, 7455]
    assert low_latency_ports(range(7450, 7461)) == [7460, 7459, 7458, 7457, 7456]


def test_a_small_range_is_for_ordinary_connections() -> None:
    assert low_latency_ports(range(7450, 7459)) == []


def test_small_frames_are_taken_while_they_are_acknowledged() -> None:
    peer = Peer()
    for _ in range(10_000):
        assert peer.takes(100)
    assert 0 < peer.asked <= 10_000 * 100 // (MAX_UNACKNOWLEDGED - 100) + 1


def test_frames_beyond_the_limit_go_the_ordinary_way_until_some_are_acknowledged() -> None:
    peer = Peer()
    taken = 0
    while True:
        peer.in_flight += 1000  # the sender notes a message before it sends the frame
        if not peer.takes(1000):
            break
        taken += 1000
    assert MAX_UNACKNOWLEDGED - 1000 < taken <= MAX_UNACKNOWLEDGED
    assert not peer.takes(10)
    peer.in_flight = 500
    assert peer.takes(10)


def test_a_large_frame_is_not_taken() -> None:
    peer = Peer()
    assert not peer.takes(MAX_PARTED + 1)
    assert peer.takes(MAX_PARTED)


def test_only_the_session_in_use_is_dropped() -> None:
    peer = Peer()
    assert not peer.path.drop(OTHER)
    assert peer.path.uses(SESSION, "zid")
    assert not peer.path.uses(SESSION, "another connection of the listening session")
    assert peer.takes(1)
    assert peer.path.drop(SESSION)
    assert not peer.takes(1)
