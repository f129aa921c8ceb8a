"""The coordinator's port: TLS and plain HTTP on the same listening sockets.

The first byte of a connection decides: a TLS handshake starts with 0x16, HTTP with a letter. It is
only looked at, so that uvicorn's protocol receives all bytes either way.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from asyncio import sslproto
from collections.abc import Callable, Sequence
from typing import Final

import anyio
import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dora_coordinator.io.authority import Authority
from dora_coordinator.io.limits import as_ipv4

FIRST_BYTE_TIMEOUT: Final = 10.0
HANDSHAKE_TIMEOUT: Final = 20.0
"""Seconds; a thousand daemons may reconnect at once."""
REQUEST_TIMEOUT: Final = 10.0
"""Seconds for the head of a request, also of a further one on the same connection."""
SHUTDOWN_TIMEOUT: Final = 2.0
ACCEPT_PAUSE: Final = 0.2
"""Seconds until accepting is tried again, without a free file descriptor for example."""

_TLS_HANDSHAKE: Final = b"\x16"

# asyncio allocates this for each TLS connection, 256 KiB by default
sslproto.SSLProtocol.max_size = 32 * 1024

logger = logging.getLogger("dora.coordinator")

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class HttpProtocol(H11Protocol):
    """uvicorn's protocol; closes a connection without a whole request head in time."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(REQUEST_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.abort()


class ServerCertificate:
    """The coordinator's certificate, issued again for each new address that clients connect to."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._addresses = frozenset(("127.0.0.1", "::1"))
        self._context = self._issue(self._addresses)

    def context_for(self, address: str) -> ssl.SSLContext:
        """Return a context whose certificate contains the local address of a connection.

        If no certificate can be issued, for example without a free file descriptor, return the
        present one, which dora's clients accept: they verify `SERVER_NAME`.
        """
        if address not in self._addresses:
            addresses = self._addresses | {address}
            try:
                self._context = self._issue(addresses)
            except OSError as error:
                logger.warning("cannot issue a certificate for %s: %s", address, error)
            else:
                self._addresses = addresses
        return self._context

    def _issue(self, addresses: frozenset[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0  # asyncio's clients cannot resume sessions
        # in memory: a full disk does not matter, and the key is not stored
        with open(os.memfd_create("dora-certificate"), "wb") as file:
            file.write(self._authority.issue_server(sorted(addresses)))
            file.flush()
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        return context


async def serve(
    listeners: Sequence[socket.socket], create: ProtocolFactory, certificate: ServerCertificate
) -> None:
    """Accept connections for uvicorn's protocols until cancelled."""
    async with anyio.create_task_group() as tasks:

        async def accept(listener: socket.socket) -> None:
            listener.setblocking(False)
            loop = asyncio.get_running_loop()
            failing = False
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as error:
                    if not failing:
                        logger.warning("cannot accept connections: %s", error.strerror)
                    failing = True
                    await anyio.sleep(ACCEPT_PAUSE)
                    continue
                failing = False
                tasks.start_soon(_open, connection, create, certificate)

        for listener in listeners:
            tasks.start_soon(accept, listener)


async def _open(
    connection: socket.socket, create: ProtocolFactory, certificate: ServerCertificate
) -> None:
    """Give one connection to a protocol; close it if it sends nothing or is not TLS after all."""
    loop = asyncio.get_running_loop()
    given = False
    try:
        first = b""
        with anyio.move_on_after(FIRST_BYTE_TIMEOUT):
            await anyio.wait_readable(connection)
            first = connection.recv(1, socket.MSG_PEEK)
        if first == _TLS_HANDSHAKE:
            context = certificate.context_for(_local_address(connection))
            await loop.connect_accepted_socket(
                create,
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
            given = True
        elif first:
            await loop.connect_accepted_socket(create, connection)
            given = True
    except OSError as error:  # also of the handshake
        logger.debug("a connection ended before it was open: %s", error)
    finally:
        if not given:
            connection.close()


def _local_address(connection: socket.socket) -> str:
    address: str = connection.getsockname()[0]
    return as_ipv4(address.partition("%")[0])
