"""Routes of the coordinator without a socket."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import pytest
from starlette.requests import Request
from starlette.types import Message
from starlette.websockets import WebSocket
from support.fleets import stored_files

from dora_config.errors import RemoteProtocolError
from dora_config.file_store import FileStore
from dora_config.protocol.code import CodeFile, CodeSet
from dora_coordinator.io import server
from dora_coordinator.io.server import _Endpoints, _handshake_frame, _next_frame
from dora_coordinator.io.service import Service


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


def test_the_code_of_a_node_is_not_read_for_head(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    content = stored_files.add(files, b"print()\n")
    code = CodeSet(files=(CodeFile(path="camera.py", sha256=content, size=8),))
    digest = stored_files.add(files, code.text())
    service = SimpleNamespace(code_digest=lambda _build, _node: digest)
    endpoints = _Endpoints(cast(Service, service), files, None)

    async def ask(method: str) -> tuple[int, bytes]:
        path_params = {"build_id": "b", "node_id": "camera"}
        scope = {"type": "http", "method": method, "path_params": path_params, "headers": []}
        sent: list[Message] = []

        async def receive() -> Message:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        response = await endpoints.archive(Request(scope, receive))
        await response(scope, receive, send)
        headers = dict(sent[0]["headers"])
        assert headers[b"content-type"] == b"application/x-tar"
        assert b"content-length" not in headers
        return sent[0]["status"], b"".join(one.get("body", b"") for one in sent)

    status, body = anyio.run(ask, "GET")
    assert status == 200
    assert b"camera.py" in body
    assert b"print()" in body
    assert anyio.run(ask, "HEAD") == (200, b"")
