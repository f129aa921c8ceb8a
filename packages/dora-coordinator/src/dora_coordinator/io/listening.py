"""The coordinator's port: TLS and plain HTTP on the same listening sockets.

The first byte of a connection decides: a TLS handshake starts with 0x16, HTTP with a letter. It is
read with MSG_PEEK, so that the server receives all bytes either way. Until a request shows the
token, a connection is pending, and may be dropped for a newer one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import struct
import sys
from collections.abc import Sequence
from tempfile import NamedTemporaryFile
from typing import IO, Final

import anyio
import anyio.lowlevel

from dora_coordinator.io.authority import Authority
from dora_coordinator.io.http_server import HttpServer
from dora_coordinator.io.limits import (
    WINDOW,
    PendingConnection,
    PendingConnections,
    as_ipv4,
    is_loopback,
    network,
)

FIRST_BYTE_TIMEOUT: Final = 10.0
"""Seconds for a new connection to send its first byte."""
ACCEPT_PAUSE: Final = 0.2
"""Seconds until accepting is retried after an error, such as no free file descriptor."""

ACCEPT_BATCH: Final = 16
"""Connections accepted before open ones are served again: asyncio does not wait between them."""

CROWDED_WAIT: Final = 0.5
"""Seconds until a connection is read for which another one was dropped: most of a flood ends before
the coordinator spends time on TLS for it."""

_TLS_HANDSHAKE: Final = b"\x16"
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1

logger = logging.getLogger("dora.coordinator")


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
        with _temporary_file() as file:
            file.write(self._authority.issue_server(sorted(addresses)))
            file.flush()
            name = file.name
            context.load_cert_chain(f"/proc/self/fd/{name}" if isinstance(name, int) else name)
        return context


def _temporary_file() -> IO[bytes]:
    """Return a file in memory (named by its descriptor): independent of a full disk, and the key is
    not stored; elsewhere than on Linux, a file that is removed when it is closed.
    """
    if sys.platform == "linux":
        return open(os.memfd_create("dora-certificate"), "wb")
    return NamedTemporaryFile()


async def serve(
    listeners: Sequence[socket.socket],
    server: HttpServer,
    certificate: ServerCertificate,
    pending: PendingConnections,
) -> None:
    """Accept connections for ``server`` until cancelled."""
    async with anyio.create_task_group() as tasks:
        next_report = 0.0

        def admit(connection: socket.socket) -> None:
            nonlocal next_report
            scope = anyio.CancelScope()
            new, dropped = pending.add(_source(connection), scope.cancel)
            wait = 0.0 if dropped is None else CROWDED_WAIT
            tasks.start_soon(_open, connection, server, certificate, new, scope, wait)
            if dropped is None:
                return
            dropped.drop()
            if anyio.current_time() >= next_report:
                next_report = anyio.current_time() + WINDOW
                logger.warning(
                    "too many connections without a token, most of them from %s; dropping the "
                    "oldest ones for newer ones",
                    dropped.source,
                )

        async def accept(listener: socket.socket) -> None:
            listener.setblocking(False)
            loop = asyncio.get_running_loop()
            failing = False
            accepted = 0
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
                admit(connection)
                accepted += 1
                if accepted % ACCEPT_BATCH == 0:
                    await anyio.lowlevel.checkpoint()

        for listener in listeners:
            tasks.start_soon(accept, listener)


async def _open(
    connection: socket.socket,
    server: HttpServer,
    certificate: ServerCertificate,
    pending: PendingConnection,
    scope: anyio.CancelScope,
    wait: float,
) -> None:
    """Give one connection to the server; close it if it sends nothing or is not TLS after all."""
    given = False
    try:
        with scope:
            first = b""
            await anyio.sleep(wait)
            with anyio.move_on_after(FIRST_BYTE_TIMEOUT):
                await anyio.wait_readable(connection)
                first = connection.recv(1, socket.MSG_PEEK)
            if first:
                tls = None
                if first == _TLS_HANDSHAKE:
                    tls = certificate.context_for(_local_address(connection))
                await server.open(connection, tls, pending)
                given = True
    except OSError as error:  # also of the handshake
        logger.debug("a connection ended before it was open: %s", error)
    finally:
        if not given:
            pending.ended()
            connection.close()


def _local_address(connection: socket.socket) -> str:
    address: str = connection.getsockname()[0]
    return as_ipv4(address.partition("%")[0])


def _source(connection: socket.socket) -> str:
    """Return the source that limits a pending connection: account of a local client, or address."""
    try:
        client, server = connection.getpeername(), connection.getsockname()
    except OSError:
        return "closed connections"
    address = as_ipv4(client[0])
    if not is_loopback(address) and client[0] != server[0]:
        return network(address)
    owner = _owner(client, server)
    return address if owner is None else f"this machine's account {owner}"


def _owner(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Return the account of the socket at the other end of a local connection.

    Asks the kernel (sock_diag(7)); None if it does not answer, if that socket is closed, or on
    systems other than Linux.
    """
    if sys.platform != "linux":
        return None
    addresses = [as_ipv4(host.partition("%")[0]) for host in (client[0], server[0])]
    family = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
    packed = [socket.inet_pton(family, address).ljust(16, b"\0") for address in addresses]
    every_state, no_interface, no_cookie = 0xFFFFFFFF, 0, b"\xff" * 8
    request = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, every_state)
    request += struct.pack("!HH", client[1], server[1]) + packed[0] + packed[1]
    request += struct.pack("=I", no_interface) + no_cookie
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(0)
            kernel.send(header + request)
            answer = kernel.recv(4096)
    except OSError:
        return None
    kind = struct.unpack_from("=H", answer, 4)[0]
    if kind != _SOCK_DIAG_BY_FAMILY or len(answer) < 84:
        return None
    owner: int = struct.unpack_from("=I", answer, 80)[0]
    return owner
