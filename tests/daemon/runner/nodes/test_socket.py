"""The node socket: messages in both directions, malformed ones and slow readers."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from support.runner.runs import open_descriptors
from support.waiting import wait_until_async

from dora_daemon.runner.nodes.socket import NodeConnection, NodeServer
from dora_node_api.frozen import FrozenRecord
from dora_node_api.protocol.control_socket import ControlSocket
from dora_node_api.protocol.frames import close_all
from dora_node_api.protocol.messages import AddSegment, Hello, SegmentFd, SetParam, StopNode


class Recorder:
    """Records the events of connections."""

    def __init__(self) -> None:
        self.messages: list[FrozenRecord] = []
        self.connections: list[NodeConnection] = []
        self.descriptors: list[int] = []
        self.disconnects = 0
        self.warnings: list[str] = []

    def received(
        self, connection: NodeConnection, message: FrozenRecord, descriptors: tuple[int, ...]
    ) -> None:
        self.messages.append(message)
        self.connections.append(connection)
        self.descriptors += descriptors

    def disconnected(self, connection: NodeConnection) -> None:
        self.disconnects += 1

    def warn(self, message: str) -> None:
        self.warnings.append(message)


HELLO = Hello(node_id="a", incarnation=1, pid=os.getpid())


async def _with_server(path: Path, work: Callable[[Recorder, Path], object]) -> Recorder:
    recorder = Recorder()
    server = NodeServer(path, recorder)
    try:
        await work(recorder, path)  # type: ignore[misc]
    finally:
        server.close()
        close_all(recorder.descriptors)
    return recorder


def serve(path: Path, work: Callable[[Recorder, Path], object]) -> Recorder:
    """Run ``work`` beside a server and check that no descriptor stays open."""
    before = open_descriptors()
    recorder = anyio.run(_with_server, path, work)
    assert open_descriptors() == before
    assert not path.exists()
    return recorder


async def connected(recorder: Recorder, path: Path) -> tuple[ControlSocket, NodeConnection]:
    """Connect a node; return both ends once its first message has arrived."""
    node = ControlSocket.connect(path)
    node.send(HELLO)
    await wait_until_async(lambda: len(recorder.messages) == 1)
    return node, recorder.connections[0]


def test_messages_and_descriptors_in_both_directions(tmp_path: Path) -> None:
    async def work(recorder: Recorder, path: Path) -> None:
        node = ControlSocket.connect(path)
        node.send(HELLO)
        reading, writing = os.pipe()
        node.send(AddSegment(number=1, size=10), [reading])
        await wait_until_async(lambda: len(recorder.messages) == 2)
        connection = recorder.connections[0]
        assert (connection.pid, connection.uid) == (os.getpid(), os.getuid())
        connection.send(SegmentFd(request=3, size=7), [writing])
        os.close(writing)
        received = node.receive(timeout=60)
        assert received is not None
        assert received.message == SegmentFd(request=3, size=7)
        os.write(received.descriptors[0], b"through")
        assert os.read(recorder.descriptors[0], 10) == b"through"
        close_all([reading, *received.descriptors])
        node.close()
        await wait_until_async(lambda: recorder.disconnects == 1)
        connection.send(StopNode())  # no error

    recorder = serve(tmp_path / "n", work)
    assert recorder.messages == [HELLO, AddSegment(number=1, size=10)]
    assert recorder.warnings == []


@pytest.mark.parametrize(
    "garbage",
    [b"\0\0\0\5\0\0hello", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0\0\0\2\0\1{}", b"\xff" * 99],
)
def test_a_malformed_message_closes_the_connection_with_a_warning(
    tmp_path: Path, garbage: bytes
) -> None:
    async def work(recorder: Recorder, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(garbage)
            await wait_until_async(lambda: recorder.disconnects == 1)
            assert sock.recv(10) == b""

    recorder = serve(tmp_path / "n", work)
    assert len(recorder.warnings) == 1
    assert "malformed message" in recorder.warnings[0]


def test_a_message_is_received_byte_by_byte(tmp_path: Path) -> None:
    async def work(recorder: Recorder, path: Path) -> None:
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
            await wait_until_async(lambda: len(recorder.messages) == 1)
        node.close()

    assert serve(tmp_path / "n", work).messages == [HELLO]


def test_unread_messages_are_queued_with_their_descriptors(tmp_path: Path) -> None:
    count = 500

    async def work(recorder: Recorder, path: Path) -> None:
        node, connection = await connected(recorder, path)
        for number in range(count):
            reading, writing = os.pipe()
            os.write(writing, f"{number}".encode())
            connection.send(SetParam("k", "v" * 2000), [reading])
            close_all([reading, writing])
        for number in range(count):
            while (received := node.receive(timeout=0.0)) is None:
                await anyio.lowlevel.checkpoint()
            assert os.read(received.descriptors[0], 10) == f"{number}".encode()
            close_all(received.descriptors)
        connection.close_when_sent()
        node.close()

    serve(tmp_path / "n", work)


def test_closing_sends_what_is_queued(tmp_path: Path) -> None:
    count = 500

    async def work(recorder: Recorder, path: Path) -> None:
        node, connection = await connected(recorder, path)
        for _ in range(count):
            connection.send(SetParam("k", "v" * 2000))
        connection.send(StopNode())
        connection.close_when_sent()
        node.send(HELLO)  # not read any more
        received: list[FrozenRecord] = []
        while not received or received[-1] != StopNode():
            found = node.receive(timeout=0.0)
            if found is None:
                await anyio.lowlevel.checkpoint()
            else:
                received.append(found.message)
        await wait_until_async(lambda: connection.closed)
        assert len(received) == count + 1
        assert len(recorder.messages) == 1
        node.close()

    serve(tmp_path / "n", work)


def test_a_node_that_never_reads_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_daemon.runner.nodes.socket.MAX_WAITING_BYTES", 1 << 20)

    async def work(recorder: Recorder, path: Path) -> None:
        node, _ = await connected(recorder, path)
        for _ in range(100):
            recorder.connections[0].send(SetParam("k", "v" * 60_000))
        assert recorder.disconnects == 1
        node.close()

    recorder = serve(tmp_path / "n", work)
    assert "does not read its control socket" in recorder.warnings[0]


def test_the_socket_works_in_a_deep_directory(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)

    async def work(recorder: Recorder, path: Path) -> None:
        node, _ = await connected(recorder, path)
        assert os.stat(path).st_mode & 0o777 == 0o600  # noqa: PTH116 - nothing waits here
        node.close()

    serve(deep / "n", work)


def test_without_free_descriptors_a_connection_is_accepted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dora_daemon.runner.nodes.socket.ACCEPT_RETRY_SECONDS", 0.05)
    real = socket.socket.accept
    failures = [OSError(24, "Too many open files") for _ in range(2)]

    def accept(self: socket.socket) -> object:
        if failures:
            raise failures.pop()
        return real(self)

    async def work(recorder: Recorder, path: Path) -> None:
        monkeypatch.setattr(socket.socket, "accept", accept)
        node, _ = await connected(recorder, path)
        node.close()

    recorder = serve(tmp_path / "n", work)
    assert recorder.warnings == [
        f"cannot accept a connection on {tmp_path}/n: [Errno 24] Too many open files; each edge"
        " takes up to six file descriptors: raise the limit (`ulimit -n`)"
    ]


@pytest.mark.parametrize("call", ["os.dup", "dora_daemon.runner.nodes.socket.send_piece"])
def test_without_descriptors_for_a_message_the_warning_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def out_of_descriptors(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async def work(recorder: Recorder, path: Path) -> None:
        node, connection = await connected(recorder, path)
        monkeypatch.setattr(call, out_of_descriptors)
        while not connection.closed:
            connection.send(SetParam("k", "v" * 2000), [node.fileno()])
        monkeypatch.undo()
        node.close()

    recorder = serve(tmp_path / "n", work)
    assert recorder.disconnects == 1
    assert "raise the limit (`ulimit -n`)" in recorder.warnings[0]
