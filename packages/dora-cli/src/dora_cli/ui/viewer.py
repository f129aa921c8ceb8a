"""One open page: its WebSocket and the streams on it."""

from __future__ import annotations

import json
from typing import Any

import anyio
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from dora_cli.ui.backend import Backend
from dora_cli.ui.feed import Feed
from dora_cli.ui.streams import (
    PAGE_FRAMES,
    Acknowledge,
    Close,
    OpenLogs,
    OpenOutput,
    OpenState,
    send_logs,
    send_output,
    send_state,
)

MAX_STREAMS = 32
PROTOCOL_ERROR = 1008


class Viewer:
    """Serves the frames of one page until it is closed."""

    def __init__(self, socket: WebSocket, feed: Feed, backend: Backend) -> None:
        self._socket = socket
        self._feed = feed
        self._backend = backend
        self._streams: dict[int, anyio.CancelScope] = {}
        self._acknowledged: dict[int, anyio.Semaphore] = {}
        self._writing = anyio.Lock()

    async def run(self) -> None:
        await self._socket.accept()
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    try:
                        text = await self._socket.receive_text()
                    except (WebSocketDisconnect, KeyError, RuntimeError):
                        break
                    try:
                        frame = PAGE_FRAMES.validate_json(text)
                    except ValidationError:
                        await self._socket.close(PROTOCOL_ERROR, "unknown frame")
                        break
                    match frame:
                        case Close(id=number):
                            if number in self._streams:
                                self._streams[number].cancel()
                        case Acknowledge(id=number):
                            if number in self._acknowledged:
                                self._acknowledged[number].release()
                        case _ if len(self._streams) >= MAX_STREAMS:
                            await self._send(
                                {
                                    "id": frame.id,
                                    "ended": True,
                                    "problems": [f"at most {MAX_STREAMS} streams per page"],
                                }
                            )
                        case _:
                            tasks.start_soon(self._stream, frame)
                tasks.cancel_scope.cancel()
        finally:
            self._streams.clear()

    async def _stream(self, frame: OpenState | OpenLogs | OpenOutput) -> None:
        with anyio.CancelScope() as scope:
            self._streams[frame.id] = scope
            try:
                match frame:
                    case OpenState():
                        await send_state(self._feed, frame, self._send)
                    case OpenLogs():
                        await send_logs(self._backend, frame, self._send)
                    case OpenOutput():
                        taken = self._acknowledged[frame.id] = anyio.Semaphore(0)
                        await send_output(self._backend, frame, taken.acquire, self._send)
            except (WebSocketDisconnect, RuntimeError):
                pass  # the page was closed; the reader ends the viewer
            finally:
                self._streams.pop(frame.id, None)
                self._acknowledged.pop(frame.id, None)

    async def _send(self, frame: dict[str, Any]) -> None:
        text = json.dumps(frame, separators=(",", ":"))
        async with self._writing:
            await self._socket.send_text(text)
