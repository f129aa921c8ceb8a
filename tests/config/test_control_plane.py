"""Connections to servers that are, or are not, the coordinator that the token names."""

from __future__ import annotations

import http.server
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from support.serving import served

from dora_config import control_plane
from dora_config.access import Endpoint
from dora_config.access_token import Token
from dora_config.control_plane import (
    AUTHORITY_PATH,
    ControlConnection,
    Untrusted,
    authority_certificate,
    is_this_machine,
    websocket_options,
)
from dora_coordinator.io import authority as authority_module
from dora_coordinator.io.authority import Authority

pytestmark = pytest.mark.usefixtures("home")

SECRET = "0123456789abcdef"


class Server(http.server.ThreadingHTTPServer):
    """HTTPS with a certificate of an authority; records the headers that clients send."""

    daemon_threads = True

    def __init__(self, authority: Authority | None, folder: Path) -> None:
        self.seen: list[str] = []
        self.pem = "" if authority is None else authority.pem
        super().__init__(("127.0.0.1", 0), Handler)
        self.context: ssl.SSLContext | None = None
        if authority is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            chain = folder / "chain.pem"
            chain.write_bytes(authority.issue_server(["127.0.0.1"]))
            self.context.load_cert_chain(chain)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        if self.context is not None:
            connection = self.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients end handshakes that they do not trust

    def endpoint(self, authority: Authority | None) -> Endpoint:
        token = Token(SECRET, None if authority is None else authority.sha256)
        return Endpoint("127.0.0.1", self.server_port, str(token))


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(f"{self.path} {self.headers}")
        body = self.server.pem.encode() if self.path == AUTHORITY_PATH else b"ok"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(authority: Authority | None, folder: Path) -> Iterator[Server]:
    with Server(authority, folder) as server, served(server):
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def ask(endpoint: Endpoint, path: str = "/api/files") -> bytes:
    connection = ControlConnection(endpoint, timeout=10)
    try:
        connection.request("GET", path, headers=endpoint.headers())
        return connection.getresponse().read()
    finally:
        connection.close()


def require_secret_unsent(server: Server) -> None:
    assert not any(SECRET in one for one in server.seen), server.seen


def test_the_authority_is_fetched_once_and_then_verifies(
    authority: Authority, tmp_path: Path
) -> None:
    with serving(authority, tmp_path) as server:
        endpoint = server.endpoint(authority)
        assert ask(endpoint) == b"ok"
        assert ask(endpoint) == b"ok"
        assert [one.split()[0] for one in server.seen] == [AUTHORITY_PATH, *["/api/files"] * 2]
        assert SECRET not in server.seen[0]
        assert SECRET in server.seen[1]
        certificate = authority_certificate(endpoint)
        assert ssl.DER_cert_to_PEM_cert(certificate).strip() == authority.pem.strip()


def test_a_token_of_another_cluster_is_not_sent(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    with serving(other, tmp_path) as server:
        with pytest.raises(Untrusted, match="is of another cluster than the coordinator at 127"):
            ask(server.endpoint(authority))
        require_secret_unsent(server)


def test_a_changed_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    with serving(authority, tmp_path) as server:
        endpoint = server.endpoint(authority)
        ask(endpoint)
        other = Authority(tmp_path / "other")
        (tmp_path / "chain.pem").write_bytes(other.issue_server(["127.0.0.1"]))
        server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.context.load_cert_chain(tmp_path / "chain.pem")
        server.seen.clear()
        with pytest.raises(Untrusted, match="has changed since this account connected") as found:
            ask(endpoint)
        assert "`dora cluster up` with the cluster file, or copy the token" in str(found.value)
        require_secret_unsent(server)


def test_a_forged_certificate_beside_the_right_one_is_not_trusted(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    with serving(other, tmp_path) as server:
        for pem in (authority.pem + other.pem, authority.pem):
            server.pem = pem
            with pytest.raises((Untrusted, OSError)):  # OSError: not decodable, by chance
                ask(server.endpoint(authority))
        require_secret_unsent(server)


def test_a_certificate_of_a_machine_is_not_the_coordinators(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority_module, "SERVER_NAME", "robot")
    with serving(authority, tmp_path) as server:
        with pytest.raises(Untrusted):
            ask(server.endpoint(authority))
        require_secret_unsent(server)


def test_a_server_without_tls_is_refused(authority: Authority, tmp_path: Path) -> None:
    with serving(None, tmp_path) as server:
        with pytest.raises(Untrusted, match="does not use TLS, so the token was not sent"):
            ask(server.endpoint(authority))
        require_secret_unsent(server)


class SlowHandler(http.server.BaseHTTPRequestHandler):
    """Sends an endless header, byte by byte."""

    begin = b"HTTP/1.1 200 OK\r\nX: "

    def do_GET(self) -> None:
        self.wfile.write(self.begin)
        while select.select([self.connection], [], [], 0.02)[0] == []:
            self.wfile.write(b"x")


class SlowBodyHandler(SlowHandler):
    """Sends an endless body, byte by byte, as the last response of its connection."""

    begin = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def test_a_suspended_coordinator_accepts_and_does_not_answer(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_plane, "FETCH_TIMEOUT", 0.2)
    with serving(authority, tmp_path) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        ask(server.endpoint(authority))
        endpoint = Endpoint("127.0.0.1", silent.getsockname()[1], server.endpoint(authority).token)
        connection = ControlConnection(endpoint, timeout=0.2)
        with pytest.raises(TimeoutError, match="accepts connections, but does not answer"):
            connection.connect()


@pytest.mark.parametrize("handler", [SlowHandler, SlowBodyHandler])
def test_an_authority_that_never_ends_is_not_waited_for(
    handler: type[SlowHandler],
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_plane, "FETCH_TIMEOUT", 0.2)
    with serving(authority, tmp_path) as server:
        server.RequestHandlerClass = handler
        with pytest.raises(TimeoutError, match=r"no complete answer within 0\.2 s"):
            authority_certificate(server.endpoint(authority))


def test_a_token_without_hash_stays_within_this_machine(tmp_path: Path) -> None:
    with serving(None, tmp_path) as server:
        assert ask(server.endpoint(None)) == b"ok"
    with pytest.raises(Untrusted, match=r"does not contain the hash .* `dora cluster install`"):
        websocket_options(Endpoint("192.0.2.1", 6013, SECRET), "/api/control")
    options = websocket_options(Endpoint("192.0.2.1", 6013), "/api/control")
    assert (options["uri"], options["additional_headers"]) == (
        "ws://192.0.2.1:6013/api/control",
        {},
    )


def test_addresses_of_this_machine() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert is_this_machine(host)
    for host in ("192.0.2.1", "no-such-host.invalid"):
        assert not is_this_machine(host)


def test_the_authority_is_read_from_the_store_again(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(authority, tmp_path) as server:
        endpoint = server.endpoint(authority)
        authority_certificate(endpoint)
        path = control_plane._store_path(endpoint)
        other = Authority(tmp_path / "other").pem
        path.write_bytes(ssl.PEM_cert_to_DER_cert(other))
        server.seen.clear()
        certificate = x509.load_der_x509_certificate(authority_certificate(endpoint))
        assert certificate.fingerprint(hashes.SHA256()) == authority.sha256
        assert len(server.seen) == 1
