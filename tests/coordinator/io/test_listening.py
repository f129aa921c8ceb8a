"""Connections to the coordinator's port that never become a request."""

from __future__ import annotations

import asyncio.selector_events
import errno
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from cryptography import x509
from starlette.types import ASGIApp, Receive, Scope, Send
from support.fleets.coordinator import running_coordinator

from dora_coordinator.io import listening
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.http_server import HttpServer, TimeLimits
from dora_coordinator.io.limits import PendingConnections

HEALTH = b"GET /api/health HTTP/1.1\r\nHost: a\r\n\r\n"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI application that answers with the address and the scheme of the client."""
    body = f"{scope['client'][0]} {scope['scheme']}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def listener(
    folder: Path,
    total: int = 100,
    application: ASGIApp = answer,
    limits: TimeLimits | None = None,
    send_buffer: int | None = None,
) -> Iterator[int]:
    """Serve `application` in a thread; yields the port."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening_socket,
        anyio.from_thread.start_blocking_portal() as portal,
    ):
        if send_buffer is not None:  # accepted connections inherit it
            listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        certificate = listening.ServerCertificate(Authority(folder))
        server = HttpServer(application, max_message=1 << 20, limits=limits)
        serving = portal.start_task_soon(
            listening.serve, [listening_socket], server, certificate, PendingConnections(total)
        )
        try:
            yield listening_socket.getsockname()[1]
        finally:
            serving.cancel()
            portal.call(server.end)


def secured(connection: socket.socket) -> ssl.SSLSocket:
    """The client's end of TLS, which accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def ends(connection: socket.socket) -> bytes:
    """Everything that is received until the end of a connection."""
    received = b""
    while part := connection.recv(4096):
        received += part
    return received


@pytest.mark.parametrize("sent", [b"G", HEALTH[:-2], HEALTH + b"G"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_with_part_of_a_request_is_closed(
    sent: bytes, tls: bool, tmp_path: Path
) -> None:
    with listener(tmp_path / "authority", limits=TimeLimits(request=0.1)) as port:
        connection = socket.create_connection(("127.0.0.1", port), 60)
        if tls:
            connection = secured(connection)
        with connection:
            connection.sendall(sent)
            assert ends(connection).count(b"HTTP/1.1 200") == sent.count(HEALTH)


def test_connections_are_accepted_again_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [OSError(errno.EMFILE, "Too many open files") for _ in range(3)]
    accept = asyncio.selector_events.BaseSelectorEventLoop.sock_accept

    async def failing(
        loop: asyncio.selector_events.BaseSelectorEventLoop, server: socket.socket
    ) -> Any:
        if errors:
            raise errors.pop()
        return await accept(loop, server)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_accept", failing)
    monkeypatch.setattr(listening, "ACCEPT_PAUSE", 0.01)
    with (
        caplog.at_level(logging.WARNING, "dora.coordinator"),
        listener(tmp_path / "authority") as port,
        socket.create_connection(("127.0.0.1", port), 60) as connection,
    ):
        connection.sendall(HEALTH[:-2] + b"Connection: close\r\n\r\n")
        assert ends(connection).startswith(b"HTTP/1.1 200")
    assert caplog.messages == ["cannot accept connections: Too many open files"]


def test_a_broken_handshake_ends_its_connection_only(tmp_path: Path) -> None:
    with listener(tmp_path / "authority") as port:
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(b"\x16\x03\x01\x00\x05hello")
            assert b"HTTP" not in ends(connection)
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(HEALTH[:-2] + b"Connection: close\r\n\r\n")
            assert ends(connection).startswith(b"HTTP/1.1 200")


def test_invalid_upgrades_do_not_count_as_pending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"  # without a key
    with listener(tmp_path / "authority", total=4) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), 60) as connection:
                connection.sendall(HEALTH[:-2] + upgrade)
                assert ends(connection).startswith(b"HTTP/1.1 4")
    assert "too many connections" not in caplog.text


def test_a_client_does_not_choose_its_address(tmp_path: Path) -> None:
    lines = b"X-Forwarded-For: 192.0.2.9\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
    with (
        listener(tmp_path / "authority") as port,
        socket.create_connection(("127.0.0.1", port), 60) as connection,
    ):
        connection.sendall(HEALTH[:-2] + lines)
        assert ends(connection).endswith(b"127.0.0.1 http")


def certified(context: ssl.SSLContext) -> set[str]:
    """The addresses in the certificate of a server's context."""
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_context = ssl.create_default_context()
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client = client_context.wrap_bio(received, sent)
    server = context.wrap_bio(sent, received, server_side=True)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    certificate = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(one) for one in names.get_values_for_type(x509.IPAddress)}


def test_a_failed_certificate_is_issued_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = listening.ServerCertificate(Authority(tmp_path / "authority"))
    loopback = {"127.0.0.1", "::1"}

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("os.memfd_create", fail)
        assert certified(certificate.context_for("192.0.2.1")) == loopback
    assert caplog.messages == [
        "cannot issue a certificate for 192.0.2.1: [Errno 24] Too many open files"
    ]
    assert certified(certificate.context_for("192.0.2.1")) == {*loopback, "192.0.2.1"}
    assert certificate.context_for("192.0.2.1") is certificate.context_for("127.0.0.1")
    names = {path.name for path in (tmp_path / "authority").iterdir()}
    assert names == {"ca.pem", "key.pem"}


@pytest.mark.integration
def test_answers_without_a_token_end_their_connection() -> None:
    with running_coordinator("--store", "memory") as coordinator:
        for request in (HEALTH, HEALTH.replace(b"health", b"control")):
            with socket.create_connection(("127.0.0.1", coordinator.port), 60) as connection:
                connection.sendall(request * 3)
                assert ends(connection).count(b"HTTP/1.1 ") == 1
