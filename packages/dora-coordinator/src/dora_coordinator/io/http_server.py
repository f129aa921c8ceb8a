"""uvicorn without its sockets and signals, and TLS whose slow readers receive whole answers.

All code that depends on internals of uvicorn or asyncio is here. uvicorn counts an answer as
complete once asyncio has it, and then closes idle connections; asyncio's TLS drops the bytes that
it has not passed to the kernel within `tls_shutdown` seconds. So an answer here ends when the
kernel has all of it. The kernel also sends it after the connection was closed, and ends
connections whose clients stop reading.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import ssl
from asyncio import sslproto
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio
import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import InvalidState

from dora_config.access import address_text
from dora_config.control_plane import UNREAD_LIMIT, detect_lost_peer
from dora_coordinator.io.guard import PENDING
from dora_coordinator.io.limits import PendingConnection, as_ipv4

TLS_BUFFER: Final = 32 * 1024
"""Bytes that asyncio allocates to read one TLS connection, two records; its default is 256 KiB."""
PIECE: Final = 256 * 1024
"""Bytes of an answer that are given to asyncio at once."""
END_TIMEOUT: Final = 1.0
"""Seconds for open requests to end with the server."""

_OUTGOING: Final = "dora.outgoing"
"""Key of the connection's `_Outgoing` in the state of a request's scope."""
_POLLS: Final = (0.001, 0.25)
"""Shortest and longest seconds between two checks whether an answer has left the process."""

logger = logging.getLogger("dora.coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """Limits of one connection in seconds."""

    tls_handshake: float = 20.0
    """Seconds for the TLS handshake: a thousand daemons may reconnect at once."""
    request: float = 10.0
    """Seconds for the head of a request, also of a further one on the same connection."""
    keep_alive: int = 5
    """Seconds from an answer to the next request."""
    tls_shutdown: float = 2.0
    unread: float = UNREAD_LIMIT
    """Seconds until sent data is acknowledged, and until the reader has room for more."""


class HttpServer:
    """Serves an ASGI application on connections that are accepted elsewhere."""

    def __init__(
        self, application: ASGIApp, *, max_message: int, limits: TimeLimits | None = None
    ) -> None:
        """``max_message``: largest message of a WebSocket in bytes."""
        # asyncio has no option for it: this also applies to other TLS connections of the process
        sslproto.SSLProtocol.max_size = TLS_BUFFER
        self._limits = TimeLimits() if limits is None else limits
        self._config = Config(
            _WholeAnswers(application),
            http=_HttpProtocol,
            ws=_WebSocketProtocol,
            ws_per_message_deflate=False,
            ws_max_size=max_message,
            ws_ping_interval=None,  # a ping would wait behind data; the kernel probes the peer
            timeout_keep_alive=self._limits.keep_alive,
            proxy_headers=False,  # a client could choose its address and scheme with them
            lifespan="off",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
        )
        self._config.load()
        self._state = ServerState()
        logging.getLogger("uvicorn.error").addFilter(_is_relevant)

    async def open(
        self, connection: socket.socket, tls: ssl.SSLContext | None, pending: PendingConnection
    ) -> None:
        """Serve an accepted connection, which has sent its first byte; raises OSError."""
        detect_lost_peer(connection, unread=self._limits.unread)
        loop = asyncio.get_running_loop()
        early = _Early()
        below, _ = await loop.connect_accepted_socket(lambda: early, connection)
        layers: list[asyncio.Transport] = [below]
        if tls is not None:
            secured = await loop.start_tls(
                below,
                early,
                tls,
                server_side=True,
                ssl_handshake_timeout=self._limits.tls_handshake,
                ssl_shutdown_timeout=self._limits.tls_shutdown,
            )
            if secured is None or early.lost:
                raise ConnectionResetError("the connection ended with its handshake")
            layers.insert(0, secured)
        transport = layers[0]
        protocol = _HttpProtocol(
            config=self._config,
            server_state=self._state,
            app_state={PENDING: pending, _OUTGOING: _Outgoing(layers, connection)},
        )
        protocol.request_timeout = self._limits.request
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if early.received:
            protocol.data_received(bytes(early.received))
        if tls is None:
            transport.resume_reading()

    async def end(self) -> None:
        """Close all connections."""
        for connection in list(self._state.connections):
            with suppress(InvalidState):  # it is closing
                connection.shutdown()
        with anyio.move_on_after(END_TIMEOUT):
            while self._state.connections or self._state.tasks:  # noqa: ASYNC110 - has no event
                await anyio.sleep(0.02)
        for task in list(self._state.tasks):
            task.cancel()


class _Early(asyncio.Protocol):
    """Protocol of a connection until it is secured: asyncio starts to read before that."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Keep what the client sent with the end of the handshake."""
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class _Outgoing:
    """Bytes of one connection that the kernel does not have yet."""

    def __init__(self, layers: Sequence[asyncio.Transport], connection: socket.socket) -> None:
        self._layers = layers
        self._writable = select.poll()
        self._writable.register(connection, select.POLLOUT)

    async def sent(self) -> None:
        """Wait until the kernel has everything and accepts more, or the connection ends."""
        pause, longest = _POLLS
        while not self._is_sent():
            await anyio.sleep(pause)
            pause = min(2 * pause, longest)

    def _is_sent(self) -> bool:
        if any(layer.is_closing() for layer in self._layers):
            return True
        return not any(layer.get_write_buffer_size() for layer in self._layers) and bool(
            self._writable.poll(0)
        )


class _WholeAnswers:
    """ASGI application in front of another one; ends an answer once the kernel has all of it."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outgoing: _Outgoing = scope["state"][_OUTGOING]

        async def pass_on(message: Message) -> None:
            match message["type"]:
                case "http.response.body":
                    kind, body = message["type"], memoryview(message.get("body", b""))
                    for start in range(0, len(body), PIECE):
                        piece = bytes(body[start : start + PIECE])
                        await send({"type": kind, "body": piece, "more_body": True})
                    if not message.get("more_body", False):
                        await outgoing.sent()
                        await send({"type": kind, "body": b""})
                case "websocket.close":
                    await outgoing.sent()
                    await send(message)
                case _:
                    await send(message)

        await self._inner(scope, receive, pass_on)


class _HttpProtocol(H11Protocol):
    """uvicorn's protocol; closes a connection without a whole request head in time."""

    request_timeout = 0.0
    _timer: asyncio.TimerHandle | None = None

    @property
    def _pending(self) -> PendingConnection:
        pending: PendingConnection = self.app_state[PENDING]
        return pending

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._pending.drop = transport.abort
        self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._pending.ended()  # from now on another protocol has it, which closes refused ones
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._pending.ended()
        _report_lost(self.client, exc)
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(self.request_timeout, self._give_up)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    def connection_lost(self, exc: Exception | None) -> None:
        _report_lost(self.client, exc)
        super().connection_lost(exc)


def _report_lost(client: tuple[str, int] | None, reason: Exception | None) -> None:
    """Log that the kernel has ended a connection; the client causes all other ends."""
    if isinstance(reason, OSError) and reason.errno == errno.ETIMEDOUT and client is not None:
        host, port = client
        logger.warning(
            "dropped the connection of %s: it has not received sent data for too long",
            address_text(as_ipv4(host), port),
        )


def _is_relevant(record: logging.LogRecord) -> bool:
    """Drop uvicorn's error for a WebSocket that is refused with an HTTP status such as 401."""
    return record.getMessage() != "ASGI callable returned without completing handshake."
