"""Zenoh sessions. Only this module imports zenoh, and only `_open` opens a session.

Peer mode with explicit endpoints, without multicast, gossip and shared memory; both sides present a
certificate of the cluster's own authority, and its name decides which keys it may use. Credentials
are read for every session.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before the import. Zenoh accepts and opens connections on threads that would then wait for their
# data and wake the threads that read it: one more wake-up for each message.
os.environ.setdefault("ZENOH_RUNTIME", "(acc:(handover:rx),app:(handover:rx))")

import zenoh

from dora_config.access import address_text
from dora_daemon.link.errors import CannotConnect, CannotListen
from dora_daemon.link.io.connect_errors import (
    first_sentence,
    why_not,
    without_brackets,
)
from dora_daemon.link.io.tcp_state import TcpConnection, connection_of, ports_of
from dora_daemon.link.protocol.access import PeerKeys, access_control
from dora_daemon.link.protocol.priority import Priority

# Settings that differ from Zenoh's defaults, measured on two machines with 2 cores: with two
# batches in flight a large message waits for every one of them.
_QUEUED_BATCHES = 16
"""Batches of one priority that Zenoh queues."""
_RECEIVE_BUFFER = 1 << 20
"""Largest read from a connection in bytes."""
_LEASE_MS = 6_000
"""Milliseconds without data after which a connection is closed."""
_WAIT_BEFORE_CLOSE_US = 8_000_000
"""Microseconds that a put waits for a full connection before Zenoh closes the connection."""
MAX_LOW_LATENCY = 40 * 1024
"""Largest frame of a low-latency session in bytes: one of 48 KiB closes the connection."""
_LOW_LATENCY_BUFFER = 256 * 1024
"""Send buffer in bytes; Linux doubles it. The system's limit (net.core.wmem_max) may reduce it."""
CONNECT_SECONDS = 3.0
"""Default timeout of each step of connecting."""

_PRIORITIES = {
    Priority.CONTROL: zenoh.Priority.INTERACTIVE_HIGH,
    Priority.SMALL: zenoh.Priority.DATA_HIGH,
    Priority.MIDDLE: zenoh.Priority.DATA,
    Priority.LARGE: zenoh.Priority.DATA_LOW,
}

OnFrame = Callable[["LinkSession", bytes], None]
OnTransport = Callable[["LinkSession", str, bool], None]
"""Called with the other side's Zenoh id and whether its connection opened (or closed)."""


_ensure = ctypes.pythonapi.PyGILState_Ensure
_ensure.restype = ctypes.c_int
_ensure.argtypes = ()
_kept = threading.local()


def keep_thread_state() -> None:
    """Keep the interpreter's state of this thread until the thread ends.

    The interpreter creates the state of a thread that it did not start for every call and frees it
    after the call, which takes longer than the call itself. One call of PyGILState_Ensure without
    its counterpart keeps it. The attribute below is part of that state, so it is missing whenever
    the state is new.
    """
    if not hasattr(_kept, "state"):
        _kept.state = _ensure()


class LinkSession:
    """One Zenoh session. Callbacks run on Zenoh's threads; they must not wait or raise."""

    def __init__(self, session: zenoh.Session, endpoint: str, *, low_latency: bool = False) -> None:
        self._session = session
        self._low_latency = low_latency
        self.endpoint = endpoint
        """Address that the session listens on or dialed, ``HOST:PORT``."""
        self.zid = str(session.zid())
        self._kept: list[Any] = []
        self._publishers: dict[str, dict[Priority, Callable[[bytes], None]]] = {}
        self.closed = False

    @classmethod
    def listen(
        cls,
        host: str,
        ports: list[int],
        credentials: Path | None,
        channels: Sequence[PeerKeys] | None = None,
        *,
        insecure_ok: bool = False,
        low_latency: bool = False,
    ) -> LinkSession:
        """Open a session on the first port that is free. Raises CannotListen.

        ``channels``: keys of all peers that may connect; None: accept any peer with a certificate.
        ``low_latency``: a put writes to the connection before it returns, whatever its priority, at
        most MAX_LOW_LATENCY bytes; both ends must set it.
        """
        if credentials is None and not (insecure_ok or host in ("127.0.0.1", "::1", "localhost")):
            raise CannotListen(f"refused to listen on {host} without certificates")
        problem = "the range is empty"
        for port in ports:
            endpoint = address_text(host, port)
            try:
                session = _open(
                    listen=endpoint,
                    dial=None,
                    credentials=credentials,
                    channels=channels,
                    low_latency=low_latency,
                )
            except (zenoh.ZError, OSError) as error:
                problem = f"{endpoint}: {first_sentence(error)}"
                continue
            return cls(session, endpoint, low_latency=low_latency)
        first, last = (min(ports), max(ports)) if ports else (0, 0)
        raise CannotListen(
            f"cannot listen on {host}, ports {first} to {last}: {problem}. Free a port of the"
            " range, or give the daemon another one (`dora daemon --zenoh-listen HOST:PORT-PORT`)"
        )

    @classmethod
    def dial(
        cls,
        endpoint: str,
        credentials: Path | None,
        channel: PeerKeys | None = None,
        *,
        seconds: float = CONNECT_SECONDS,
        low_latency: bool = False,
    ) -> LinkSession:
        """Open a session that is connected to a peer at ``HOST:PORT``. Raises CannotConnect.

        ``channel``: keys of the peer; None: accept any peer with a certificate.
        ``seconds``: time for the TCP connection, and again for TLS and Zenoh.
        ``low_latency``: as in `listen`.
        """
        try:
            session = _open(
                listen=None,
                dial=endpoint,
                credentials=credentials,
                channels=None if channel is None else (channel,),
                connect_seconds=seconds,
                low_latency=low_latency,
            )
        except (zenoh.ZError, OSError) as error:
            raise CannotConnect(why_not(endpoint, credentials, error, seconds)) from error
        opened = cls(session, endpoint, low_latency=low_latency)
        found = opened.names()
        if credentials and channel and found and channel.name not in found:
            opened.close()
            raise CannotConnect(f"{endpoint} has the certificate of {found[0]}, not {channel.name}")
        return opened

    def subscribe(self, key: str, on_frame: OnFrame) -> None:
        """Call ``on_frame`` with every sample of ``key``, on the thread that receives it.

        Zenoh's default passes samples through a queue to a Python thread, which costs two wake-ups.
        """

        def received(sample: zenoh.Sample) -> None:
            keep_thread_state()
            on_frame(self, sample.payload.to_bytes())

        handler = zenoh.handlers.Callback(received, indirect=False)
        self._kept.append(self._session.declare_subscriber(key, handler))

    def watch(self, on_transport: OnTransport) -> None:
        """Call ``on_transport`` when a connection opens or closes."""

        def happened(event: zenoh.TransportEvent) -> None:
            on_transport(self, str(event.transport.zid), event.kind == zenoh.SampleKind.PUT)

        self._kept.append(self._session.info.declare_transport_events_listener(happened))

    def publishers(self, key: str) -> dict[Priority, Callable[[bytes], None]]:
        """Return the functions that send to a key. Raises ConnectionError, as they do once closed.

        A put of Priority.CONTROL is dropped when it would wait; others wait, without the GIL, until
        the connection takes them or is closed.
        """
        found = self._publishers.get(key)
        if found is None:
            found = self._publishers[key] = {p: self._publisher(key, p) for p in Priority}
        return found

    def _publisher(self, key: str, priority: Priority) -> Callable[[bytes], None]:
        control = zenoh.CongestionControl
        try:
            publisher = self._session.declare_publisher(
                key,
                priority=_PRIORITIES[priority],
                congestion_control=control.DROP if priority is Priority.CONTROL else control.BLOCK,
                express=True,
            )
        except zenoh.ZError as error:
            raise ConnectionError(first_sentence(error)) from error
        self._kept.append(publisher)
        put = publisher.put

        def send(frame: bytes) -> None:
            try:
                put(frame)
            except zenoh.ZError as error:
                raise ConnectionError(first_sentence(error)) from error

        return send

    def names(self) -> list[str]:
        """Return the common names in the certificates of connected sessions.

        Empty for a low-latency session: listing its connections makes Zenoh panic.
        """
        if self._low_latency:
            return []
        try:
            return [str(link.auth_identifier) for link in self._session.info.links()]
        except zenoh.ZError:
            return []

    def connection(self, zid: str) -> TcpConnection | None:
        """Return the connection to the session of this Zenoh id."""
        try:
            links = self._session.info.links()
        except zenoh.ZError:
            return None
        to_peer = [link for link in links if str(link.zid) == zid]
        ports = ports_of(to_peer[0].src, to_peer[0].dst) if len(to_peer) == 1 else None
        return None if ports is None else connection_of(ports)

    def connected(self) -> bool:
        """Whether any other session is connected."""
        try:
            return bool(self._session.info.links())
        except zenoh.ZError:
            return False

    def close(self) -> None:
        """Disconnect. Not from a callback; a second call does nothing."""
        if not self.closed:
            self.closed = True
            for kept in self._kept:
                # RuntimeError: a put is in progress; it fails with the session.
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
    channels: Sequence[PeerKeys] | None,
    connect_seconds: float = CONNECT_SECONDS,
    low_latency: bool = False,
) -> zenoh.Session:
    """Open a session. Raises ZError, OSError."""
    protocol = "tcp" if credentials is None else "tls"
    buffer = f"#so_sndbuf={_LOW_LATENCY_BUFFER}" if low_latency else ""
    config = zenoh.Config()
    settings: dict[str, Any] = {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "transport/shared_memory/enabled": False,
        "listen/endpoints": [f"{protocol}/{listen}{buffer}"] if listen else [],
        "listen/exit_on_failure": True,
        "listen/timeout_ms": 0,
        "connect/endpoints": [f"{protocol}/{without_brackets(dial)}{buffer}"] if dial else [],
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
    if low_latency:
        settings["transport/unicast/lowlatency"] = True
        settings["transport/unicast/qos/enabled"] = False
    for priority in ("data_high", "data", "data_low"):
        settings[f"transport/link/tx/queue/size/{priority}"] = _QUEUED_BATCHES
    if credentials is not None:
        key, certificate = str(credentials / "key.pem"), str(credentials / "cert.pem")
        settings["transport/link/tls"] = {
            "root_ca_certificate": str(credentials / "ca.pem"),
            "enable_mtls": True,
            "listen_private_key": key,
            "listen_certificate": certificate,
            "connect_private_key": key,
            "connect_certificate": certificate,
            # A peer is identified by the name in its certificate, not by its address.
            "verify_name_on_connect": False,
        }
        if channels is not None:
            settings["access_control"] = access_control(channels)
    for name, value in settings.items():
        config.insert_json5(name, json.dumps(value))
    return zenoh.open(config)


def silence() -> None:
    """Disable Zenoh's log on stderr, which reports every closed connection."""
    zenoh.init_log_from_env_or("off")
