"""Zenoh sessions; the only module that imports zenoh, and `_open` the only place that opens one.

Peer mode, multicast and gossip off, shared memory off, endpoints explicit, both sides show a
certificate of the cluster's own authority. Credentials are read whenever a session is opened.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zenoh

from dora_config.protocol.links import WRONG_CLOCK
from dora_daemon.link.errors import CannotConnect, CannotListen
from dora_daemon.link.protocol.priority import Lane

# Settings that differ from Zenoh's own, each tried on two machines with 2 cores: with two batches
# on the way a large message waits for every one of them.
_BATCHES = 16
_RECEIVE_BUFFER = 1 << 20
_LEASE_MS = 6_000
# A put waits at most so long for a connection that takes nothing; then the connection is closed.
_WAIT_BEFORE_CLOSE_US = 8_000_000
CONNECT_SECONDS = 3.0
"""Within which a connection is made, unless the caller allows more."""
# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED; TLS has one alert for both.
_WRONG_TIME = (9, 10)
_WRONG_TIME_ALERTS = ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "TLSV13_ALERT_CERTIFICATE_EXPIRED")

_PRIORITIES = {
    Lane.CONTROL: zenoh.Priority.INTERACTIVE_HIGH,
    Lane.SMALL: zenoh.Priority.DATA_HIGH,
    Lane.MIDDLE: zenoh.Priority.DATA,
    Lane.LARGE: zenoh.Priority.DATA_LOW,
}

OnFrame = Callable[["Session", bytes], None]
OnTransport = Callable[["Session", str, bool], None]
"""Called with the other side's Zenoh id and whether it came or went. On a thread of Zenoh."""


class Session:
    """One Zenoh session. Callbacks run on Zenoh's threads and must neither wait nor raise."""

    def __init__(self, session: zenoh.Session, endpoint: str) -> None:
        self._session = session
        self.endpoint = endpoint
        """Address that it listens on, or that it dialled: ``HOST:PORT``."""
        self.zid = str(session.zid())
        self._kept: list[Any] = []
        self._publishers: dict[str, dict[Lane, Callable[[bytes], None]]] = {}
        self.closed = False

    @classmethod
    def listen(
        cls, host: str, ports: list[int], credentials: Path | None, *, insecure_ok: bool = False
    ) -> Session:
        """Open a session on the first port that is free. Raises CannotListen."""
        if credentials is None and not (insecure_ok or host in ("127.0.0.1", "::1", "localhost")):
            raise CannotListen(f"refusing to listen on {host} without certificates")
        problem = "the range is empty"
        for port in ports:
            endpoint = join_address(host, port)
            try:
                session = _open(listen=endpoint, dial=None, credentials=credentials)
            except (zenoh.ZError, OSError) as error:
                problem = f"{endpoint}: {_first_sentence(error)}"
                continue
            return cls(session, endpoint)
        first, last = (min(ports), max(ports)) if ports else (0, 0)
        raise CannotListen(
            f"cannot listen on {host}, ports {first} to {last}: {problem}. Free a port of the"
            " range, or give the daemon another one (`dora daemon --zenoh-listen HOST:PORT-PORT`)"
        )

    @classmethod
    def dial(
        cls, endpoint: str, credentials: Path | None, *, seconds: float = CONNECT_SECONDS
    ) -> Session:
        """Open a session that is connected to ``HOST:PORT``. Raises CannotConnect.

        ``seconds``: time for the TCP connection, and again for TLS and Zenoh.
        """
        try:
            session = _open(
                listen=None, dial=endpoint, credentials=credentials, connect_seconds=seconds
            )
        except (zenoh.ZError, OSError) as error:
            raise CannotConnect(_why_not(endpoint, credentials, error, seconds)) from error
        return cls(session, endpoint)

    def subscribe(self, key: str, on_frame: OnFrame) -> None:
        """Hand every sample of ``key`` to ``on_frame``."""

        def received(sample: zenoh.Sample) -> None:
            on_frame(self, sample.payload.to_bytes())

        self._kept.append(self._session.declare_subscriber(key, received))

    def watch(self, on_transport: OnTransport) -> None:
        """Tell who connects and who goes."""

        def happened(event: zenoh.TransportEvent) -> None:
            on_transport(self, str(event.transport.zid), event.kind == zenoh.SampleKind.PUT)

        self._kept.append(self._session.info.declare_transport_events_listener(happened))

    def publishers(self, key: str) -> dict[Lane, Callable[[bytes], None]]:
        """How to send to a key. A put on Lane.CONTROL is dropped when it would wait; others wait,
        without the GIL, until the connection takes them or is closed; it raises ConnectionError
        once closed, as this does.
        """
        found = self._publishers.get(key)
        if found is None:
            found = self._publishers[key] = {lane: self._publisher(key, lane) for lane in Lane}
        return found

    def _publisher(self, key: str, lane: Lane) -> Callable[[bytes], None]:
        control = zenoh.CongestionControl
        try:
            publisher = self._session.declare_publisher(
                key,
                priority=_PRIORITIES[lane],
                congestion_control=control.DROP if lane is Lane.CONTROL else control.BLOCK,
                express=True,
            )
        except zenoh.ZError as error:
            raise ConnectionError(_first_sentence(error)) from error
        self._kept.append(publisher)
        put = publisher.put

        def send(frame: bytes) -> None:
            try:
                put(frame)
            except zenoh.ZError as error:
                raise ConnectionError(_first_sentence(error)) from error

        return send

    def connected(self) -> bool:
        """Whether any other session is connected."""
        try:
            return bool(self._session.info.links())
        except zenoh.ZError:
            return False

    def close(self) -> None:
        """Disconnect. May be called twice; not from a callback."""
        if not self.closed:
            self.closed = True
            for kept in self._kept:
                # RuntimeError: a thread is just putting something; it goes with the session.
                with contextlib.suppress(zenoh.ZError, RuntimeError):
                    kept.undeclare()
            self._kept.clear()
            with contextlib.suppress(zenoh.ZError):
                self._session.close()  # type: ignore[no-untyped-call]


def _open(
    *,
    listen: str | None,
    dial: str | None,
    credentials: Path | None,
    connect_seconds: float = CONNECT_SECONDS,
) -> zenoh.Session:
    """The one place where a session is opened. Raises ZError, OSError."""
    protocol = "tcp" if credentials is None else "tls"
    config = zenoh.Config()
    settings: dict[str, Any] = {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
        "listen/endpoints": [f"{protocol}/{listen}"] if listen else [],
        "listen/exit_on_failure": True,
        "listen/timeout_ms": 0,
        "connect/endpoints": [f"{protocol}/{_without_brackets(dial)}"] if dial else [],
        "connect/exit_on_failure": True,
        "connect/timeout_ms": int(connect_seconds * 1000),
        "transport/link/protocols": [protocol],
        "transport/link/tx/lease": _LEASE_MS,
        "transport/link/tx/queue/congestion_control/block/wait_before_close": (
            _WAIT_BEFORE_CLOSE_US
        ),
        "transport/link/rx/buffer_size": _RECEIVE_BUFFER,
        "transport/link/rx/max_message_size": 1 << 30,
    }
    for lane in ("data_high", "data", "data_low"):
        settings[f"transport/link/tx/queue/size/{lane}"] = _BATCHES
    if credentials is not None:
        key, certificate = str(credentials / "key.pem"), str(credentials / "cert.pem")
        settings["transport/link/tls"] = {
            "root_ca_certificate": str(credentials / "ca.pem"),
            "enable_mtls": True,
            "listen_private_key": key,
            "listen_certificate": certificate,
            "connect_private_key": key,
            "connect_certificate": certificate,
            # A peer is whoever has a certificate of our authority, at whatever address it is seen.
            "verify_name_on_connect": False,
        }
    for name, value in settings.items():
        config.insert_json5(name, json.dumps(value))
    return zenoh.open(config)


def silence() -> None:
    """Keep Zenoh from writing to stderr what only concerns connections that come and go."""
    zenoh.init_log_from_env_or("off")


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def split_address(endpoint: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``. Raises CannotConnect for anything else."""
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise CannotConnect(f"{endpoint!r} is no address, expected HOST:PORT")
    return host.strip("[]"), int(port)


def _without_brackets(endpoint: str) -> str:
    """As Zenoh (1.10) dials over TLS: what stands in brackets is no name to it."""
    host, port = split_address(endpoint)
    return f"{host}:{port}"


def _first_sentence(error: BaseException) -> str:
    """Without the places in Zenoh's source that its errors name."""
    return str(error).split(" at /")[0].strip() or type(error).__name__


def probe(endpoint: str, seconds: float = CONNECT_SECONDS) -> float:
    """Make a TCP connection and return the seconds it took. Raises CannotConnect.

    Zenoh only reports a timeout; the system has the reason.
    """
    host, port = split_address(endpoint)
    begin = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except TimeoutError as error:
        raise CannotConnect(
            f"{endpoint} does not answer within {seconds:g} s: a firewall between the"
            f" machines drops packets, or the address is wrong; open TCP port {port} there"
        ) from error
    except OSError as error:
        raise CannotConnect(f"{endpoint}: {error.strerror or error}") from error
    return time.monotonic() - begin


def _why_not(endpoint: str, credentials: Path | None, error: BaseException, seconds: float) -> str:
    """The reason why Zenoh failed to connect, from a TLS handshake of our own."""
    if credentials is None:
        return f"{endpoint}: {_first_sentence(error)}"
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
        if _is_about_time(problem):
            return (
                f"{endpoint}: a certificate is not valid at the time of a clock: one of the two"
                f" machines has a {WRONG_CLOCK} (this one: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC)."
                " Correct it, or upgrade the coordinator: newer certificates suit any clock"
            )
        return f"{endpoint} and this machine do not trust each other's certificates: {problem}"
    except OSError as problem:
        return f"{endpoint}: {problem}"
    return f"{endpoint} takes the connection, but no link of this cluster answers in {seconds:g} s"


def _is_about_time(problem: ssl.SSLError) -> bool:
    """Whether a certificate is expired or not yet valid, by our clock or by the other machine's."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return problem.verify_code in _WRONG_TIME
    return problem.reason in _WRONG_TIME_ALERTS
