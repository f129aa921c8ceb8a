"""Connections of the control plane: every client of a coordinator opens them here.

The token names the certificate authority of the cluster by its hash. A connection uses TLS and
accepts only a coordinator whose certificate that authority has issued; no secret is sent before.
A token without the hash is used in plain text and only within this machine.
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import os
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from dora_config.access import Endpoint, private_dir, state_dir, write_private
from dora_config.errors import DoraError

SERVER_NAME: Final = "dora-coordinator"
"""Name in the certificate of every coordinator; certificates of machines do not have it."""
AUTHORITY_PATH: Final = "/api/ca"
"""Route of the authority's certificate (PEM); needs no token."""

CONNECT_TIMEOUT: Final = 5.0
"""Seconds after which a coordinator that does not answer counts as unreachable."""
FETCH_TIMEOUT: Final = 5.0
"""Seconds to connect, and for the whole answer with the authority's certificate."""
UNREAD_LIMIT: Final = 60.0
"""Seconds after which the kernel ends a connection whose sent data is not acknowledged, or whose
peer reads nothing."""
_MAX_CERTIFICATE: Final = 64 * 1024
"""Most bytes of a certificate that a server sends."""
_COPY_TOKEN: Final = (
    "copy the token file of the coordinator's account (~/.config/dora/token, mode 0600) to this "
    "account, or set DORA_AUTH_TOKEN"
)


class Untrusted(DoraError):
    """The coordinator could not be verified, so no secret was sent; ``str()`` has the remedy."""


def websocket_options(endpoint: Endpoint, path: str) -> dict[str, Any]:
    """Return the arguments of ``websockets``' ``connect`` for a route of the coordinator.

    May fetch the authority's certificate. Raises :class:`Untrusted` and OSError.
    """
    context = security(endpoint)
    options: dict[str, Any] = {
        "uri": endpoint.url(path, scheme="ws" if context is None else "wss"),
        "additional_headers": endpoint.headers(),
        "compression": None,
        "proxy": None,
    }
    if context is not None:
        options |= {"ssl": context, "server_hostname": SERVER_NAME}
    return options


def detect_lost_peer(connection: socket.socket, *, unread: float = UNREAD_LIMIT) -> None:
    """Let the kernel end the connection within a minute after the other machine is gone.

    ``unread``: seconds after which it ends the connection to a program that reads nothing; Linux
    only. Other systems use their own limit while sent data is unacknowledged.
    """
    options = {socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 3}
    if sys.platform == "linux":
        options[socket.TCP_KEEPIDLE] = 15
        # no probes are sent while data is unacknowledged
        options[socket.TCP_USER_TIMEOUT] = round(unread * 1000)
    else:
        options[socket.TCP_KEEPALIVE] = 15
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in options.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


@contextmanager
def _handshake_of(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Describe a timeout after the TCP connection: the program is suspended or uses no TLS."""
    try:
        yield
    except TimeoutError as error:
        if connection.sock is None:
            raise
        raise TimeoutError("it accepts connections, but does not answer") from error


class ControlConnection(http.client.HTTPConnection):
    """HTTP to the coordinator; connecting raises :class:`Untrusted` and OSError."""

    def __init__(self, endpoint: Endpoint, *, timeout: float) -> None:
        super().__init__(endpoint.host, endpoint.port, timeout=timeout)
        self._endpoint = endpoint

    def connect(self) -> None:
        context = security(self._endpoint)
        # Python encodes a str with the codec idna, which is slow to import; ASCII does not need it
        host: Any = self.host.encode() if self.host.isascii() else self.host
        self.sock = socket.create_connection((host, self.port), self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        detect_lost_peer(self.sock)
        if context is None:
            return
        try:
            with _handshake_of(self):
                self.sock = context.wrap_socket(self.sock, server_hostname=SERVER_NAME.encode())
        except OSError as error:  # an ssl.SSLError, or the connection was lost
            self.close()
            if isinstance(error, ssl.SSLError):
                raise explain(self._endpoint, error) or error from error
            raise


def security(endpoint: Endpoint) -> ssl.SSLContext | None:
    """Return how a connection is secured; None: plain, because no secret leaves this machine.

    Fetches the authority's certificate unless it is stored. Raises :class:`Untrusted` and OSError.
    """
    if endpoint.authority is not None:
        return _context(authority_certificate(endpoint))
    if endpoint.token is not None and not is_this_machine(endpoint.host):
        raise Untrusted(
            f"this account's token does not contain the hash of the authority of the coordinator "
            f"at {endpoint}, so the token was not sent; run `dora cluster install` (`up` without "
            f"services) with the cluster file, or {_COPY_TOKEN}"
        )
    return None


def explain(endpoint: Endpoint, error: ssl.SSLError) -> Untrusted | None:
    """Return why a handshake failed, with the remedy; None if the connection was lost."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _changed(endpoint)
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"):
        return Untrusted(
            f"the program at {endpoint} does not use TLS, so the token was not sent; choose the "
            "coordinator with --coordinator-addr and --coordinator-port"
        )
    return None


def _changed(endpoint: Endpoint) -> Untrusted:
    """Return the error for an authority that the token does not name."""
    if _stored(endpoint) is not None:
        return Untrusted(
            f"the authority of the coordinator at {endpoint} has changed since this account "
            "connected to it, so the token was not sent; if you have replaced the authority or "
            f"the coordinator's machine, run `dora cluster up` with the cluster file, or "
            f"{_COPY_TOKEN}; "
            "otherwise another program may have taken its address"
        )
    return Untrusted(
        f"this account's token is of another cluster than the coordinator at {endpoint}, so it "
        f"was not sent; choose another coordinator with --coordinator-addr, or {_COPY_TOKEN}"
    )


def is_this_machine(host: str) -> bool:
    """Return whether connections to ``host`` stay within this machine."""
    try:
        found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
        return all(_stays_here(family, place) for family, _, _, _, place in found)
    except (OSError, UnicodeError):  # UnicodeError: not a valid host name
        return False


def is_local(address: str) -> bool:
    """Return whether this machine has the address."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except (OSError, UnicodeError):
        return False
    return True


def _stays_here(family: int, place: Any) -> bool:
    """Return whether the kernel would use the address as its own source address."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(place)  # sends nothing
        return bool(probe.getsockname()[0] == probe.getpeername()[0])


# ------------------------------------------------------------------ the authority


def authority_certificate(endpoint: Endpoint) -> bytes:
    """Return the authority's certificate (DER), which has the hash in the token.

    Raises :class:`Untrusted` and OSError.
    """
    if (stored := _stored(endpoint)) is not None:
        return stored
    certificate = _fetch(endpoint)
    if _digest(certificate) != endpoint.authority:
        raise _changed(endpoint)
    with suppress(OSError):  # fetched again next time
        path = _store_path(endpoint)
        private_dir(path.parent)
        write_private(path, certificate)
    return certificate


def local_authority(endpoint: Endpoint) -> bytes | None:
    """Return SHA-256 of the authority's certificate of a coordinator on this machine.

    None: it is on another machine, does not answer or does not use TLS.
    """
    if is_this_machine(endpoint.host):
        with suppress(Untrusted, OSError):
            return _digest(_fetch(endpoint))
    return None


def _store_path(endpoint: Endpoint) -> Path:
    return state_dir(os.environ) / "authorities" / f"{endpoint}.der"


def _stored(endpoint: Endpoint) -> bytes | None:
    try:
        certificate = _store_path(endpoint).read_bytes()
    except OSError:
        return None
    return certificate if _digest(certificate) == endpoint.authority else None


def _digest(certificate: bytes) -> bytes:
    return hashlib.sha256(certificate).digest()


def _fetch(endpoint: Endpoint) -> bytes:
    """Return the certificate that the coordinator presents as its authority's, not verified yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        endpoint.host, endpoint.port, timeout=FETCH_TIMEOUT, context=context
    )
    expired = threading.Event()

    def end_read(sock: socket.socket) -> None:
        """End a blocked read, whose own timeout starts again with each byte."""
        expired.set()
        with suppress(OSError):  # closed meanwhile
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    deadline = None
    try:
        with _handshake_of(connection):
            connection.connect()
        # the connection itself drops its socket after the headers of a last response
        deadline = threading.Timer(FETCH_TIMEOUT, end_read, [connection.sock])
        deadline.start()
        connection.request("GET", AUTHORITY_PATH)
        with connection.getresponse() as answer:
            if answer.status != 200:
                raise Untrusted(
                    f"the program at {endpoint} has no certificate of an authority (HTTP status "
                    f"{answer.status}); is it a coordinator of this version?"
                )
            return ssl.PEM_cert_to_DER_cert(answer.read(_MAX_CERTIFICATE).decode("ascii"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        if expired.is_set():
            raise TimeoutError(f"no complete answer within {FETCH_TIMEOUT:g} s") from error
        if isinstance(error, ssl.SSLError):
            raise explain(endpoint, error) or error from error
        if isinstance(error, OSError):
            raise
        raise OSError(f"no valid answer: {error}") from error
    finally:
        if deadline is not None:
            deadline.cancel()
        connection.close()


@functools.lru_cache(maxsize=8)
def _context(certificate: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.hostname_checks_common_name = False  # a machine chooses its own name
    context.load_verify_locations(cadata=certificate)
    return context
