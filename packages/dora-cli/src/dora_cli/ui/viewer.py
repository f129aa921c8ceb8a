"""One open page: its WebSocket and the streams on it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NoReturn

import anyio
from pydantic import ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from dora_cli.ui.connection import CoordinatorConnection
from dora_cli.ui.feed import Feed
from dora_cli.ui.streams import (
    PAGE_FRAMES,
    Acknowledge,
    Close,
    OpenLogs,
    OpenOutput,
    OpenState,
    PageFrame,
    send_logs,
    send_output,
    send_state,
)

MAX_STREAMS = 32
PROTOCOL_ERROR = 1008
WRITE_SECONDS = 20.0
"""Time for a page to receive a frame; a stalled page is closed and connects again."""


class PageClosed(Exception):
    """The page was closed, has stalled, or sent an unknown frame."""


class Viewer:
    """Serves the frames of one page until it is closed."""

    def __init__(self, socket: WebSocket, feed: Feed, coordinator: CoordinatorConnection) -> None:
        self._socket = socket
        self._feed = feed
        self._coordinator = coordinator
        self._streams: dict[int, anyio.CancelScope] = {}
        self._acknowledged: dict[int, anyio.Semaphore] = {}
        self._writing = anyio.Lock()

    async def run(self) -> None:
        await self._socket.accept()
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    frame = await self._receive()
                    match frame:
                        case Close(id=number):
                            if number in self._streams:
                                self._streams[number].cancel()
                        case Acknowledge(id=number):
                            if number in self._acknowledged:
                                self._acknowledged[number].release()
                        case _ if len(self._streams) >= MAX_STREAMS:
                            await self._end(frame.id, f"at most {MAX_STREAMS} streams per page")
                        case _ if frame.id in self._streams:
                            await self._refuse(f"stream {frame.id} is open already")
                        case _:
                            scope = self._streams[frame.id] = anyio.CancelScope()
                            tasks.start_soon(self._stream, frame, scope)
        except* PageClosed:
            pass

    async def _stream(
        self, frame: OpenState | OpenLogs | OpenOutput, scope: anyio.CancelScope
    ) -> None:
        with scope:
            try:
                match frame:
                    case OpenState():
                        await send_state(self._feed, frame, self._send)
                    case OpenLogs():
                        await send_logs(self._coordinator, frame, self._send)
                    case OpenOutput():
                        taken = self._acknowledged[frame.id] = anyio.Semaphore(0)
                        await send_output(self._coordinator, frame, taken.acquire, self._send)
            except (ValueError, RecursionError) as error:
                problem = f"a message cannot be sent to the page as JSON ({error})"
                await self._end(frame.id, problem)
            finally:
                self._streams.pop(frame.id, None)
                self._acknowledged.pop(frame.id, None)

    async def _end(self, number: int, problem: str) -> None:
        await self._send({"id": number, "ended": True, "problems": [problem]})

    async def _send(self, frame: dict[str, Any]) -> None:
        """Raises PageClosed; ValueError or RecursionError for a frame that JSON cannot contain."""
        text = json.dumps(frame, separators=(",", ":"), allow_nan=False)
        async with self._writing:
            try:
                with anyio.fail_after(WRITE_SECONDS):
                    await self._socket.send_text(text)
            except (WebSocketDisconnect, RuntimeError, TimeoutError) as error:
                raise PageClosed from error

    async def _refuse(self, reason: str) -> NoReturn:
        with suppress(RuntimeError), anyio.move_on_after(WRITE_SECONDS):
            await self._socket.close(PROTOCOL_ERROR, reason)
        raise PageClosed

    async def _receive(self) -> PageFrame:
        try:
            text = await self._socket.receive_text()
        except (WebSocketDisconnect, KeyError, RuntimeError) as error:
            raise PageClosed from error  # or it sent a binary frame
        try:
            return PAGE_FRAMES.validate_json(text)
        except ValidationError:
            await self._refuse("unknown frame")
