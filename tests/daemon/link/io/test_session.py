"""Settings of Zenoh sessions."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zenoh
from daemon.link.certificates import Authority
from support.waiting import wait_until

from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.io.connect_errors import probed
from dora_daemon.link.io.session import LinkSession, _open
from dora_daemon.link.protocol.access import PeerKeys, channel
from dora_daemon.link.protocol.priority import Priority


def between(machine: str, peer: str) -> PeerKeys:
    """Keys of a machine; tests name certificates as machines."""
    return channel("dora/test/flow", machine, peer, peer)


def test_a_probe_stays_connected_until_the_dial_has_ended() -> None:
    """A listener of Zenoh pauses 100 ms after a connection that ends without a handshake."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with probed("{}:{}".format(*server.getsockname()), 10.0) as took:
            accepted, _ = server.accept()
            with accepted:
                accepted.setblocking(False)
                with pytest.raises(BlockingIOError):
                    accepted.recv(1)
        assert 0.0 <= took < 10.0


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [("[fd00::1]:7450", "tls/fd00::1:7450"), ("10.0.0.7:7450", "tls/10.0.0.7:7450")],
)
def test_an_address_is_dialled_without_brackets(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, expected: str
) -> None:
    """With them, Zenoh (1.10) fails with "invalid dns name", but only over TLS."""
    dialled: list[str] = []

    def refuse(config: Any) -> None:
        dialled.extend(json.loads(config.get_json("connect/endpoints")))
        raise zenoh.ZError("no")

    monkeypatch.setattr(zenoh, "open", refuse)
    with pytest.raises(zenoh.ZError):
        _open(listen=None, dial=endpoint, credentials=Path("credentials"), channels=())
    assert dialled == [expected]


class Station:
    """The link of one machine, which listens for the machines "robot" and "thief"."""

    def __init__(self, home: Path, *, low_latency: bool = False) -> None:
        self._authority = Authority()
        self.home = home
        self.received: list[tuple[str, bytes]] = []
        channels = [between("station", peer) for peer in ("robot", "thief")]
        self.session = LinkSession.listen(
            "127.0.0.1",
            list(range(7450, 7549)),
            self.certificate("station"),
            channels,
            low_latency=low_latency,
        )
        for peer, own in zip(("robot", "thief"), channels, strict=True):
            self.session.subscribe(own.incoming, partial(self._receive, peer))

    def _receive(self, peer: str, _session: LinkSession, frame: bytes) -> None:
        self.received.append((peer, frame))

    def certificate(self, name: str) -> Path:
        return self._authority.sign(self.home / name, name)

    def send(self, peer: str, frame: bytes) -> None:
        self.session.publishers(between("station", peer).outgoing)[Priority.SMALL](frame)


@contextmanager
def station_link(home: Path, *, low_latency: bool = False) -> Iterator[Station]:
    station = Station(home, low_latency=low_latency)
    try:
        yield station
    finally:
        station.session.close()


@contextmanager
def program(
    endpoint: str, credentials: Path, *, low_latency: bool = False
) -> Iterator[zenoh.Session]:
    """A program with Zenoh and a machine's certificate, without any access control of its own."""
    config = zenoh.Config()
    settings = {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "connect/endpoints": [f"tls/{endpoint}"],
        "connect/exit_on_failure": True,
        "transport/unicast/lowlatency": low_latency,
        "transport/unicast/qos/enabled": not low_latency,
        "transport/link/tls": {
            "root_ca_certificate": str(credentials / "ca.pem"),
            "enable_mtls": True,
            "connect_private_key": str(credentials / "key.pem"),
            "connect_certificate": str(credentials / "cert.pem"),
            "verify_name_on_connect": False,
        },
    }
    for name, value in settings.items():
        config.insert_json5(name, json.dumps(value))
    session = zenoh.open(config)
    try:
        yield session
    finally:
        session.close()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("low_latency", [False, True])
@pytest.mark.parametrize("machine", ["robot", "thief"])
def test_a_machine_sends_on_its_own_key_only(home: Path, machine: str, low_latency: bool) -> None:
    """The robot's certificate shows that the messages of the thief would have arrived."""
    robots, thiefs = between("station", "robot"), between("station", "thief")
    with station_link(home, low_latency=low_latency) as station:
        own = station.certificate(machine)
        with program(station.session.endpoint, own, low_latency=low_latency) as session:
            keys = [robots.incoming, thiefs.incoming, "dora/test/flow/link/station/*", "**"]
            for key in keys:
                session.put(key, f"{machine} on {key}")
            # messages of one connection arrive in order
            last = robots if machine == "robot" else thiefs
            session.put(last.incoming, "last")
            wait_until(
                lambda: any(frame == b"last" for _, frame in station.received),
                what=lambda: str(station.received),
            )
        assert {peer for peer, _ in station.received} == {machine}


@pytest.mark.parametrize("low_latency", [False, True])
def test_a_machine_receives_its_own_messages_only(home: Path, low_latency: bool) -> None:
    """The robot's certificate shows that a subscriber to all keys would receive them."""
    heard: dict[str, list[bytes]] = {"robot": [], "thief": []}
    subscribers = []
    with (
        station_link(home, low_latency=low_latency) as station,
        program(
            station.session.endpoint, station.certificate("robot"), low_latency=low_latency
        ) as robot,
        program(
            station.session.endpoint, station.certificate("thief"), low_latency=low_latency
        ) as thief,
    ):
        for name, session in (("robot", robot), ("thief", thief)):
            for key in ("**", *(between("station", peer).outgoing for peer in heard)):
                own = heard[name]
                subscribers.append(session.declare_subscriber(key, partial(note, own)))
        send_until_received(station, "thief", heard["thief"])
        send_until_received(station, "robot", heard["robot"])
        send_until_received(station, "thief", heard["thief"])
    assert {*heard["thief"]} == {b"for thief"}
    assert {*heard["robot"]} == {b"for robot"}


def note(received: list[bytes], sample: zenoh.Sample) -> None:
    received.append(sample.payload.to_bytes())


def send_until_received(station: Station, peer: str, received: list[bytes]) -> None:
    """Send again until something arrives: a subscription takes a moment."""
    count = len(received)

    def arrived() -> bool:
        station.send(peer, f"for {peer}".encode())
        return len(received) > count

    wait_until(arrived, what=f"a message for {peer}")


def test_another_machine_at_the_address_of_a_peer_is_refused(home: Path) -> None:
    with station_link(home) as station:
        own = station.certificate("robot")
        with pytest.raises(CannotConnect, match="has the certificate of station, not base"):
            LinkSession.dial(station.session.endpoint, own, between("robot", "base"))
        LinkSession.dial(station.session.endpoint, own, between("robot", "station")).close()


def test_a_low_latency_session_to_another_machine_carries_nothing(home: Path) -> None:
    """Its certificate cannot be read, but access control compares the name with every message."""
    with station_link(home, low_latency=True) as station:
        mistaken, right = between("robot", "base"), between("robot", "station")
        received: list[bytes] = []
        sessions = [
            LinkSession.dial(
                station.session.endpoint, station.certificate("robot"), channel, low_latency=True
            )
            for channel in (mistaken, right)
        ]
        try:
            for session, channel in zip(sessions, (mistaken, right), strict=True):
                assert session.names() == []
                session.subscribe(right.incoming, lambda _, frame: received.append(frame))
                session.publishers(right.outgoing)[Priority.SMALL](channel.name.encode())

            def arrived() -> bool:
                for session, channel in zip(sessions, (mistaken, right), strict=True):
                    session.publishers(right.outgoing)[Priority.SMALL](channel.name.encode())
                return bool(station.received)

            wait_until(arrived, what="a message")
            assert {*station.received} == {("robot", b"station")}
            send_until_received(station, "robot", received)
        finally:
            for session in sessions:
                session.close()


def test_the_state_of_a_receiving_thread_is_kept_between_frames() -> None:
    """An attribute of a `threading.local` goes with the state."""
    local = threading.local()
    calls: list[int] = []

    def received(_session: LinkSession, frame: bytes) -> None:
        local.calls = getattr(local, "calls", 0) + (frame == b"x")
        calls.append(local.calls)

    listening = LinkSession.listen("127.0.0.1", list(range(7447, 7547)), None)
    sending = LinkSession.dial(listening.endpoint, None)
    try:
        listening.subscribe("dora/test", received)
        put = sending.publishers("dora/test")[Priority.SMALL]

        def arrives() -> bool:
            put(b"first")
            return bool(calls)

        wait_until(arrives, what="the subscription to be known")
        for _ in range(50):
            put(b"x")
        wait_until(lambda: sum(1 for count in calls if count) >= 50, what="all frames")
    finally:
        sending.close()
        listening.close()
    assert max(calls) > 1
