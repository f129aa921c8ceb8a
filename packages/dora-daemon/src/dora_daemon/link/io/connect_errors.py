"""Addresses, and the reason why a connection to one fails.

Zenoh only reports a timeout; a connection and a TLS handshake of our own find the reason.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

from dora_daemon.link.errors import CannotConnect


def split_address(endpoint: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``. Raises CannotConnect."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise CannotConnect(f"invalid address {endpoint!r}, expected HOST:PORT")
    return host.strip("[]"), int(port)


def without_brackets(endpoint: str) -> str:
    """Return the address as Zenoh (1.10) dials it over TLS: it rejects brackets."""
    host, port = split_address(endpoint)
    return f"{host}:{port}"


def first_sentence(error: BaseException) -> str:
    """Return Zenoh's error without the places in its source."""
    return str(error).split(" at /")[0].strip() or type(error).__name__


@contextlib.contextmanager
def probed(endpoint: str, seconds: float) -> Iterator[float]:
    """Make a TCP connection; yield the seconds it took. Raises CannotConnect.

    It stays open in the block: a link with TLS takes no other connection for 100 ms after the end
    of one without a handshake.
    """
    host, port = split_address(endpoint)
    begin = time.monotonic()
    try:
        connection = socket.create_connection((host, port), timeout=seconds)
    except TimeoutError as error:
        raise CannotConnect(
            f"{endpoint} does not answer within {seconds:g} s: a firewall between the"
            f" machines drops packets, or the address is wrong; open TCP port {port} there"
        ) from error
    except OSError as error:
        raise CannotConnect(f"{endpoint}: {error.strerror or error}") from error
    with connection:
        yield time.monotonic() - begin


def is_open(endpoint: str, seconds: float) -> bool | None:
    """Return whether a port accepts connections; None if its machine does not answer."""
    try:
        socket.create_connection(split_address(endpoint), timeout=seconds).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return None
    return True


def why_not(endpoint: str, credentials: Path | None, error: BaseException, seconds: float) -> str:
    """Return why Zenoh failed to connect, from a TLS handshake of our own."""
    if credentials is None:
        return f"{endpoint}: {first_sentence(error)}"
    try:
        context = ssl.create_default_context(cafile=str(credentials / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(credentials / "cert.pem", credentials / "key.pem")
        with (
            socket.create_connection(split_address(endpoint), timeout=seconds) as plain,
            context.wrap_socket(plain) as secured,
        ):
            secured.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                secured.recv(1)
    except TimeoutError:
        return f"{endpoint} takes the connection, but no TLS handshake within {seconds:g} s"
    except ssl.SSLError as problem:
        return f"{endpoint} and this machine do not trust each other's certificates: {problem}"
    except OSError as problem:
        return f"{endpoint}: {problem}"
    return f"{endpoint} takes the connection, but no link of this cluster answers in {seconds:g} s"
