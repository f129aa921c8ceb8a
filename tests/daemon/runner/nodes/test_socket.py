"""The socket for nodes: whole messages in, whole messages out, garbage and slow readers."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from daemon.runner.flows import open_descriptors
from support.waiting import wait_until_async

from dora_daemon.runner.nodes.socket import NodeConnection, NodeServer
from dora_node_api.frozen import Frozen
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.frames import close_all
from dora_node_api.protocol.messages import Hello, ParamUpdate, Segment, SegmentFd, Stop


class Desk:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[Frozen] = []
        self.connections: list[NodeConnection] = []
        self.descriptors: list[int] = []
        self.hung_up = 0
        self.complaints: list[str] = []

    def node_said(
        self, connection: NodeConnection, message: Frozen, descriptors: tuple[int, ...]
    ) -> None:
        self.said.append(message)
        self.connections.append(connection)
        self.descriptors += descriptors

    def node_hung_up(self, connection: NodeConnection) -> None:
        self.hung_up += 1

    def complain(self, message: str) -> None:
        self.complaints.append(message)


HELLO = Hello(node_id="a", incarnation=1, pid=os.getpid())


async def _with_server(path: Path, work: Callable[[Desk, Path], object]) -> Desk:
    desk = Desk()
    server = NodeServer(path, desk)
    try:
        await work(desk, path)  # type: ignore[misc]
    finally:
        server.close()
        close_all(desk.descriptors)
    return desk


def serve(path: Path, work: Callable[[Desk, Path], object]) -> Desk:
    """Run ``work`` beside a server; nothing may stay open."""
    before = open_descriptors()
    desk = anyio.run(_with_server, path, work)
    assert open_descriptors() == before
    assert not path.exists()
    return desk


def test_messages_and_descriptors_both_ways_and_who_is_there(tmp_path: Path) -> None:
    async def work(desk: Desk, path: Path) -> None:
        node = ControlSocket.connect(path)
        node.send(HELLO)
        reading, writing = os.pipe()
        node.send(Segment(number=1, size=10), [reading])
        await wait_until_async(lambda: len(desk.said) == 2)
        connection = desk.connections[0]
        assert (connection.pid, connection.uid) == (os.getpid(), os.getuid())
        connection.send(SegmentFd(request=3, size=7), [writing])
        os.close(writing)
        received = node.receive(timeout=60)
        assert received is not None
        assert received.message == SegmentFd(request=3, size=7)
        os.write(received.descriptors[0], b"through")
        assert os.read(desk.descriptors[0], 10) == b"through"
        close_all([reading, *received.descriptors])
        node.close()
        await wait_until_async(lambda: desk.hung_up == 1)
        connection.send(Stop())  # to nobody: no error

    desk = serve(tmp_path / "n", work)
    assert desk.said == [HELLO, Segment(number=1, size=10)]
    assert desk.complaints == []


@pytest.mark.parametrize(
    "garbage",
    [b"\0\0\0\5\0\0hello", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0\0\0\2\0\1{}", b"\xff" * 99],
)
def test_garbage_ends_the_connection_with_a_complaint(tmp_path: Path, garbage: bytes) -> None:
    async def work(desk: Desk, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(garbage)
            await wait_until_async(lambda: desk.hung_up == 1)
            assert sock.recv(10) == b""

    desk = serve(tmp_path / "n", work)
    assert len(desk.complaints) == 1
    assert "no message" in desk.complaints[0]


def test_half_a_message_waits_for_the_other_half(tmp_path: Path) -> None:
    async def work(desk: Desk, path: Path) -> None:
        node = ControlSocket.connect(path)
        ours, theirs = socket.socketpair()
        ControlSocket(ours).send(HELLO)
        frame = theirs.recv(65536)
        theirs.close()
        ours.close()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            for byte in frame:
                sock.sendall(bytes([byte]))
            await wait_until_async(lambda: len(desk.said) == 1)
        node.close()

    assert serve(tmp_path / "n", work).said == [HELLO]


def test_what_a_node_does_not_read_waits_with_its_descriptors(tmp_path: Path) -> None:
    count = 500

    async def work(desk: Desk, path: Path) -> None:
        node = ControlSocket.connect(path)
        node.send(HELLO)
        await wait_until_async(lambda: len(desk.said) == 1)
        connection = desk.connections[0]
        for number in range(count):
            reading, writing = os.pipe()
            os.write(writing, f"{number}".encode())
            connection.send(ParamUpdate("k", "v" * 2000), [reading])
            close_all([reading, writing])
        for number in range(count):
            while (received := node.receive(timeout=0.0)) is None:
                await anyio.lowlevel.checkpoint()
            assert os.read(received.descriptors[0], 10) == f"{number}".encode()
            close_all(received.descriptors)
        connection.close_when_sent()
        node.close()

    serve(tmp_path / "n", work)


def test_a_node_that_never_reads_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dora_daemon.runner.nodes.socket.MOST_WAITING", 1 << 20)

    async def work(desk: Desk, path: Path) -> None:
        node = ControlSocket.connect(path)
        node.send(HELLO)
        await wait_until_async(lambda: len(desk.said) == 1)
        for _ in range(100):
            desk.connections[0].send(ParamUpdate("k", "v" * 60_000))
        assert desk.hung_up == 1
        node.close()

    desk = serve(tmp_path / "n", work)
    assert "does not read its control socket" in desk.complaints[0]


def test_a_deep_directory_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)

    async def work(desk: Desk, path: Path) -> None:
        node = ControlSocket.connect(path)
        node.send(HELLO)
        await wait_until_async(lambda: len(desk.said) == 1)
        assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116 - nothing waits here
        node.close()

    serve(deep / "n", work)


def test_without_free_descriptors_a_connection_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_daemon.runner.nodes.socket.ACCEPT_AGAIN", 0.05)
    real = socket.socket.accept
    failures = [OSError(24, "Too many open files")]

    def accept(self: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return real(self)

    async def work(desk: Desk, path: Path) -> None:
        monkeypatch.setattr(socket.socket, "accept", accept)
        node = ControlSocket.connect(path)
        node.send(HELLO)
        await wait_until_async(lambda: len(desk.said) == 1)
        node.close()

    desk = serve(tmp_path / "n", work)
    assert desk.complaints == [
        "cannot accept a node's connection: [Errno 24] Too many open files; each edge takes up to"
        " six file descriptors: raise the limit (`ulimit -n`)"
    ]


@pytest.mark.parametrize("call", ["os.dup", "dora_daemon.runner.nodes.socket.send_piece"])
def test_without_descriptors_for_what_is_sent_the_complaint_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def out_of_descriptors(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def work(desk: Desk, path: Path) -> None:
        node = ControlSocket.connect(path)
        node.send(HELLO)
        await wait_until_async(lambda: len(desk.said) == 1)
        monkeypatch.setattr(call, out_of_descriptors)
        while not desk.connections[0].closed:
            desk.connections[0].send(ParamUpdate("k", "v" * 2000), [node.fileno()])
        monkeypatch.undo()
        node.close()

    desk = serve(tmp_path / "n", work)
    assert desk.hung_up == 1
    assert "raise the limit (`ulimit -n`)" in desk.complaints[0]
