"""Answers and streams of the coordinator to readers that pause, are slow, or stop."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import ssl
import struct
from asyncio import sslproto
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from coordinator.io.test_listening import listener, secured
from starlette.types import Receive, Scope, Send
from support.waiting import let_last, wait_until
from uvicorn.config import Config

from dora_coordinator.io import http_server
from dora_coordinator.io.http_server import PIECE, TLS_BUFFER, HttpServer, TimeLimits

SIZES = (200_000, 400_000, 600_000, 800_000, 1_200_000, 2_400_000)
"""The server gives the last bytes to the kernel before, in, or after the pause of the reader."""
BUFFER = 64 << 10
"""Of the kernel, for each end of a connection."""
PAUSE = 1.0
QUICK = TimeLimits(request=0.2, keep_alive=0, tls_shutdown=0.1)
"""Every limit of an idle connection ends in the pause of a reader."""
FRAMES = 4
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer `/SIZE`, `/SIZE/chunks`, and the same size in frames for a WebSocket."""
    size = int(scope["path"].split("/")[1])
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        for _ in range(FRAMES):
            await send({"type": "websocket.send", "bytes": bytes(size // FRAMES)})
        await send({"type": "websocket.close"})
        return
    chunks = scope["path"].endswith("/chunks")
    headers = [] if chunks else [(b"content-length", str(size).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if chunks:
        await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
    await send({"type": "http.response.body", "body": bytes(0 if chunks else size)})


@dataclass(frozen=True)
class Reader:
    """A client that pauses before it reads."""

    size: int
    kind: str
    tls: bool
    close: bool = False

    def read(self, port: int) -> bool:
        """Return whether all bytes arrive."""
        path = f"/{self.size}/{self.kind}".encode()
        header = b"Connection: close\r\n" if self.close else b""
        header = UPGRADE if self.kind == "frames" else header
        with client(port, tls=self.tls) as connection:
            connection.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + header + b"\r\n")
            let_last(PAUSE)
            got = bytearray()
            with suppress(OSError):  # what is missing counts
                while part := connection.recv(1 << 20):
                    got += part
        return bytes(got.partition(b"\r\n\r\n")[2]).startswith(self._expected())

    def _expected(self) -> bytes:
        if self.kind == "frames":
            part = self.size // FRAMES
            long = part > 0xFFFF
            length = (
                b"\x7f" + struct.pack(">Q", part) if long else b"\x7e" + struct.pack(">H", part)
            )
            return FRAMES * (b"\x82" + length + bytes(part)) + b"\x88\x02\x03\xe8"
        if self.kind == "whole":
            return bytes(self.size)
        return (
            b"".join(
                f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
                for start in range(0, self.size, PIECE)
                for piece in [bytes(min(PIECE, self.size - start))]
            )
            + b"0\r\n\r\n"
        )


READERS = [
    *itertools.starmap(Reader, product(SIZES, ("whole", "chunks"), (False, True), (False, True))),
    *itertools.starmap(Reader, product(SIZES, ("frames",), (False, True))),
]


@contextmanager
def client(port: int, *, tls: bool) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", port))
        if not tls:
            yield connection
            return
        with secured(connection) as over_tls:
            yield over_tls


def test_a_reader_may_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn would ping a reader of frames and later close its connection, here in the pause."""

    def config(application: Any, **options: Any) -> Config:
        return Config(application, **{"ws_ping_interval": 0.1, "ws_ping_timeout": 0.1, **options})

    close_timeout = property(lambda _: 0.1, lambda _, seconds: None)
    protocol = http_server._WebSocketProtocol
    monkeypatch.setattr(http_server, "Config", config)
    monkeypatch.setattr(protocol, "close_timeout", close_timeout, raising=False)
    with (
        listener(tmp_path, 1000, application=answer, limits=QUICK, send_buffer=BUFFER) as port,
        ThreadPoolExecutor(len(READERS)) as threads,
    ):
        whole = threads.map(lambda reader: reader.read(port), READERS)
        cut = [reader for reader, complete in zip(READERS, whole, strict=True) if not complete]
    assert not cut


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("upgrade", [False, True])
def test_a_reader_that_stops_is_dropped(
    tls: bool, upgrade: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = f"GET /{32 << 20} HTTP/1.1\r\nHost: a\r\n".encode()
    if upgrade:
        request += UPGRADE
    with (
        caplog.at_level(logging.WARNING, "dora.coordinator"),
        listener(tmp_path, application=answer, limits=TimeLimits(unread=0.5)) as port,
        client(port, tls=tls) as connection,
    ):
        connection.sendall(request + b"\r\n")
        here = connection.getsockname()[1]
        wait_until(lambda: caplog.messages, what="the connection is dropped")
    assert caplog.messages == [
        f"dropped the connection of 127.0.0.1:{here}: it has not received sent data for too long"
    ]


def test_an_idle_server_sets_no_timer() -> None:
    async def serve() -> list[asyncio.TimerHandle]:
        server = HttpServer(answer, max_message=1)
        for _ in range(100):
            await asyncio.sleep(0)
        timers: list[asyncio.TimerHandle] = list(asyncio.get_running_loop()._scheduled)  # type: ignore[attr-defined]
        await server.end()
        return timers

    assert asyncio.run(serve()) == []


def test_asyncio_allocates_little_for_a_tls_connection() -> None:
    """A fleet has thousands of them; a release of asyncio could rename what sets the size."""

    async def measured() -> int:
        HttpServer(answer, max_message=1)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        loop, inner = asyncio.get_running_loop(), asyncio.Protocol()
        connection = sslproto.SSLProtocol(
            loop, inner, context, loop.create_future(), server_side=True
        )
        allocated = len(connection.get_buffer(-1))
        connection.connection_lost(None)
        return allocated

    assert asyncio.run(measured()) == TLS_BUFFER
