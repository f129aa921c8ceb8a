"""Routes of the coordinator without a socket."""

from __future__ import annotations

import anyio
import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from dora_config.errors import RemoteProtocolError
from dora_coordinator.io import server
from dora_coordinator.io.server import _handshake_frame, _next_frame


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
