"""The state of TCP connections of this process, by their ports."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from support.waiting import wait_until

from dora_daemon.link.io.tcp_state import TcpConnection, connection_of, ports_of, read

Pair = tuple[socket.socket, socket.socket]


def made_of(opened: socket.socket) -> TcpConnection:
    return TcpConnection(opened.fileno(), os.fstat(opened.fileno()).st_ino)


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with (
        socket.create_server((request.param, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as near,
        server.accept()[0] as far,
    ):
        yield near, far


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("tls/10.0.0.7:40123", "tls/10.0.0.8:7450", (40123, 7450)),
        ("tcp/[fd00::1]:7450", "tcp/[fd00::2]:40123", (7450, 40123)),
        ("tls/10.0.0.7:7500#so_sndbuf=262144", "tls/10.0.0.8:7450", (7500, 7450)),
        ("unixsock-stream//tmp/a", "tls/10.0.0.8:7450", None),
    ],
)
def test_ports_of_locators(source: str, destination: str, expected: tuple[int, int] | None) -> None:
    assert ports_of(source, destination) == expected


def test_a_connection_is_found_by_its_ports_and_stays_open(pair: Pair) -> None:
    near, far = pair
    ours, theirs = near.getsockname()[1], near.getpeername()[1]
    assert connection_of((ours, theirs)) == made_of(near)
    assert connection_of((theirs, ours)) == made_of(far)
    near.sendall(b"x")
    assert far.recv(1) == b"x"
    near.close()
    assert connection_of((ours, theirs)) is None


def test_written_bytes_arrive_or_wait(pair: Pair) -> None:
    near, far = pair
    connection = made_of(near)
    before = read(connection)
    near.sendall(bytes(10_000))
    wait_until(lambda: read(connection).arrived == before.arrived + 10_000, what="acknowledgements")
    assert read(connection).written == before.written + 10_000
    near.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            near.send(bytes(1 << 16))
    full = read(connection)
    assert full.unsent > 0
    # The kernel counts what flies in whole packets.
    assert full.arrived + full.unsent <= full.written + 1
    far.close()


def test_another_descriptor_is_refused() -> None:
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError):
        read(made_of(other))


def test_another_connection_with_the_descriptor_of_a_closed_one_is_refused(pair: Pair) -> None:
    near, far = pair
    connection = made_of(near)
    os.dup2(far.fileno(), near.fileno())  # closes it, and the descriptor is reused at once
    with pytest.raises(OSError, match="its descriptor is reused"):
        read(connection)
