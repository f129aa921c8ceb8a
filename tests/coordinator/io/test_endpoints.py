"""Routes of the coordinator without a socket."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message
from starlette.websockets import WebSocket
from support.fleets import stored_files
from support.waiting import wait_until_async

from dora_config.errors import RemoteProtocolError
from dora_config.file_store import FileStore
from dora_config.protocol.code import CodeFile, CodeSet
from dora_config.protocol.control import (
    CLIENT_CODEC,
    SERVER_CODEC,
    Cancel,
    ClientFrame,
    ClientRequest,
    ControlRequest,
    Failure,
    Hello,
    ReadLogs,
    WatchTopics,
    Welcome,
)
from dora_coordinator.io import files as files_module, server
from dora_coordinator.io.connections import DaemonConnection, Renewal
from dora_coordinator.io.files import CodeFiles
from dora_coordinator.io.server import _Endpoints, _handshake_frame, _next_frame
from dora_coordinator.io.service import Service
from dora_coordinator.queries.clients import RequestClient
from dora_coordinator.settings import Settings
from dora_testing.cluster.fleet import COORDINATOR


async def web_socket(*messages: Message) -> WebSocket:
    """An accepted connection that receives messages, and nothing more."""
    waiting: list[Message] = [{"type": "websocket.connect"}, *messages]

    async def receive() -> Message:
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop(0)

    async def send(message: Message) -> None:
        pass

    socket = WebSocket({"type": "websocket"}, receive, send)
    await socket.accept()
    return socket


def test_a_missing_frame_of_the_handshake_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_TIMEOUT", 0.01)

    async def run() -> None:
        with pytest.raises(RemoteProtocolError, match=r"^no identity_proof within 0\.01 s"):
            await _handshake_frame(await web_socket(), "identity_proof")

    anyio.run(run)


def test_binary_frames_are_refused() -> None:
    async def run() -> None:
        socket = await web_socket({"type": "websocket.receive", "bytes": b"\x00"})
        with pytest.raises(RemoteProtocolError, match="expected text frames"):
            await _next_frame(socket)

    anyio.run(run)


class WaitingService:
    """Answers no request, and counts those that wait."""

    settings = Settings(streams_per_client=2)
    party = COORDINATOR

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.daemons = self
        """It has the connections, too."""

    def connect(self, address: str, renewal: Renewal) -> DaemonConnection:
        return DaemonConnection(1, address, renewal)

    def disconnect(self, connection: DaemonConnection) -> None:
        connection.hang_up()

    async def request(self, request: ControlRequest, client: RequestClient) -> None:
        with client.scope:
            self.waiting.append(client.number)
            try:
                await anyio.sleep_forever()
            finally:
                self.waiting.remove(client.number)


def test_requests_of_one_kind_are_limited_and_can_be_cancelled() -> None:
    service = WaitingService()
    sent: list[Any] = []

    async def run() -> None:
        send, arriving = anyio.create_memory_object_stream[Message](10)

        async def receive() -> Message:
            return await arriving.receive()

        async def note(message: Message) -> None:
            if "text" in message:
                sent.append(SERVER_CODEC.decode(message["text"]))

        def arrive(frame: ClientFrame) -> None:
            text = CLIENT_CODEC.encode(frame)
            send.send_nowait({"type": "websocket.receive", "text": text})

        scope = {"type": "websocket", "client": ("10.0.0.2", 1), "server": ("10.0.0.1", 2)}
        endpoints = _Endpoints(cast(Service, service), cast(CodeFiles, None))
        send.send_nowait({"type": "websocket.connect"})
        arrive(Hello(party=COORDINATOR))
        for number in (1, 2, 3):
            arrive(ClientRequest(id=number, request=ReadLogs()))
        arrive(ClientRequest(id=4, request=WatchTopics()))
        async with send, arriving, anyio.create_task_group() as tasks:
            tasks.start_soon(endpoints.control, WebSocket(scope, receive, note))
            await wait_until_async(lambda: service.waiting == [1, 2, 4])
            await wait_until_async(lambda: len(sent) == 2)
            arrive(Cancel(id=1))
            await wait_until_async(lambda: service.waiting == [2, 4])
            arrive(ClientRequest(id=5, request=ReadLogs()))
            await wait_until_async(lambda: service.waiting == [2, 4, 5])
            send.send_nowait({"type": "websocket.disconnect", "code": 1000})
        assert service.waiting == []

    anyio.run(run)
    welcome, refusal = sent
    assert isinstance(welcome, Welcome)
    assert isinstance(refusal, Failure)
    assert refusal.id == 3
    assert "at most 2 requests of one kind are open" in refusal.message


def archive(files: FileStore, digest: str, method: str = "GET") -> tuple[int, Headers, bytes]:
    """Status, headers and body of the archive of the node "camera", whose code is ``digest``."""
    service = SimpleNamespace(code_digest=lambda _build, _node: digest)
    code = CodeFiles(files, max_bytes=1 << 20, fetch=cast(Any, None))
    endpoints = _Endpoints(cast(Service, service), code)
    path_params = {"build_id": "b", "node_id": "camera"}
    scope = {"type": "http", "method": method, "path_params": path_params, "headers": []}
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        response = await stored_files.answered(endpoints.archive, Request(scope, receive))
        await response(scope, receive, send)

    anyio.run(run)
    body = b"".join(one.get("body", b"") for one in sent)
    return sent[0]["status"], Headers(raw=sent[0]["headers"]), body


def stored_code(files: FileStore) -> str:
    content = stored_files.add(files, b"print()\n")
    code = CodeSet(files=(CodeFile(path="camera.py", sha256=content, size=8),))
    return stored_files.add(files, code.text())


def test_the_code_of_a_node_is_not_read_for_head(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    digest = stored_code(files)
    status, headers, body = archive(files, digest)
    assert status == 200
    assert headers["content-type"] == "application/x-tar"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''camera.tar"
    assert "content-length" not in headers
    assert b"camera.py" in body
    assert b"print()" in body
    status, headers, body = archive(files, digest, "HEAD")
    assert (status, body) == (200, b"")
    assert "content-length" not in headers


def test_code_that_is_not_a_list_of_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may name any stored file as the code of a node."""
    files = FileStore(tmp_path)
    for content in (b"print()\n", b"\xff", b"[" * 10_000):
        status, _, body = archive(files, stored_files.add(files, content))
        assert status == 422
        assert b'the code of node "camera" is not a valid list of files' in body
    digest = stored_code(files)
    monkeypatch.setattr(files_module, "MAX_CODE_LIST", 100)
    status, _, body = archive(files, digest)
    assert status == 422
    assert b"at most 100 are read" in body


def test_code_that_cannot_be_read_is_answered_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FileStore(tmp_path)
    digest = stored_code(files)

    def read_only(path: object, *_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("os.utime", read_only)
    status, _, body = archive(files, digest)
    assert (status, body) == (507, f"{files.path(digest)}: Read-only file system\n".encode())
