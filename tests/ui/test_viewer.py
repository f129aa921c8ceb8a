"""A page that stalls or sends nonsense ends alone; one bad message ends one stream."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from dora_ui import streams
from dora_ui.connection import CoordinatorConnection
from dora_ui.feed import Feed

UUID = "8a1c7a86-5b3c-4dd2-9f3e-6c1a3a9b1c11"
LOGS = json.dumps({"id": 1, "open": "logs", "dataflow": UUID})
STATE = json.dumps({"id": 2, "open": "state"})


class FakeSocket:
    """A page that sends some frames and then waits."""

    def __init__(self, *frames: str, stalls: bool = False) -> None:
        self._frames = list(frames)
        self._stalls = stalls
        self.sent: list[dict[str, Any]] = []
        self.closed: list[str] = []
        self.arrived = anyio.Event()

    async def accept(self) -> None:
        pass

    async def receive_text(self) -> str:
        if self._frames:
            return self._frames.pop(0)
        await self.arrived.wait()
        raise WebSocketDisconnect

    async def send_text(self, text: str) -> None:
        if self._stalls:
            await anyio.sleep_forever()
        self.sent.append(json.loads(text))
        self.arrived.set()

    async def close(self, code: int, reason: str) -> None:
        self.closed.append(reason)


def serve(socket: FakeSocket, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    """Serve a page whose streams send one frame with ``content`` and stay open."""

    async def send_one(_: Any, frame: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"id": frame.id, "content": content})
        await anyio.sleep_forever()

    async def idle(*_: Any) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(streams, "send_logs", send_one)
    monkeypatch.setattr(streams, "send_state", idle)

    async def run() -> None:
        with anyio.fail_after(30):
            page = streams.Viewer(
                cast("WebSocket", socket), cast("Feed", None), cast("CoordinatorConnection", None)
            )
            await page.run()

    anyio.run(run)


def test_a_stalled_page_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_SECONDS", 0.01)
    serve(FakeSocket(LOGS, STATE, stalls=True), monkeypatch, "a line")


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(200_000):
        found = [found]
    return found


@pytest.mark.parametrize("content", [float("inf"), deep()], ids=["infinity", "deep"])
def test_what_json_cannot_contain_ends_one_stream(
    content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = FakeSocket(LOGS, STATE)
    serve(socket, monkeypatch, content)
    ((frame,), closed) = socket.sent, socket.closed
    assert (frame["id"], frame["ended"], closed) == (1, True, [])


def test_an_open_stream_is_not_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    socket = FakeSocket(STATE, STATE)
    serve(socket, monkeypatch, "")
    assert socket.closed == ["stream 2 is open already"]
