"""Sessions on which peers connect: the ordinary one, and one for low-latency connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dora_daemon.link.errors import CannotListen
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.low_latency import low_latency_ports
from dora_daemon.link.protocol.access import PeerKeys
from dora_daemon.link.protocol.messages import Configure

_CREDENTIALS_NS = 5_000_000_000
"""Nanoseconds between checks for a renewed certificate."""


class PeerListener:
    """The listening sessions of a link. Certificate and peers of an open session cannot be changed:
    `close` it, and `open` it again on its port. Main thread only; others read."""

    def __init__(
        self,
        config: Configure,
        credentials: Path | None,
        prepare: Callable[[LinkSession], None],
        listen: Callable[..., LinkSession] = LinkSession.listen,
    ) -> None:
        """``prepare``: called with each session that was opened."""
        self._config = config
        self._credentials = credentials
        self._prepare = prepare
        self._listen = listen
        self._ports = list(range(config.first_port, config.last_port + 1))
        self._port = config.port
        """Port to try first, so that peers find the link again."""
        self._session: LinkSession | None = None
        self._low_latency: LinkSession | None = None
        """None if no port is free for it."""
        self._certificate = self._certificate_time()
        self._certificate_checked_ns = 0

    @property
    def endpoint(self) -> str:
        """Address of the ordinary session; empty before `open`."""
        return "" if self._session is None else self._session.endpoint

    @property
    def low_latency_port(self) -> int:
        """Port for low-latency connections; 0 without one."""
        return 0 if self._low_latency is None else _port_of(self._low_latency)

    @property
    def ordinary_ports(self) -> list[int]:
        """Ports on which links listen first."""
        quick = low_latency_ports(self._ports)
        return [port for port in self._ports if port not in quick]

    @property
    def sessions(self) -> tuple[LinkSession, ...]:
        """The open sessions."""
        return tuple(filter(None, (self._session, self._low_latency)))

    def open(self, channels: Sequence[PeerKeys]) -> None:
        """Listen for peers. Raises CannotListen.

        ``channels``: keys of all peers that may connect.
        """
        ports = self._ports
        if self._port is not None:
            ports = [self._port, *(port for port in ports if port != self._port)]
        self._session = self._open(ports, channels, low_latency=False)
        self._port = _port_of(self._session)
        self._low_latency = self._open_low_latency(channels)
        for session in self.sessions:
            self._prepare(session)

    def _open_low_latency(self, channels: Sequence[PeerKeys]) -> LinkSession | None:
        ports = low_latency_ports(self._ports)
        if not ports:
            return None
        try:
            return self._open(ports, channels, low_latency=True)
        except CannotListen:
            return None

    def _open(
        self, ports: list[int], channels: Sequence[PeerKeys], *, low_latency: bool
    ) -> LinkSession:
        return self._listen(
            self._config.listen_host,
            ports,
            self._credentials,
            channels,
            insecure_ok=self._config.plain,
            low_latency=low_latency,
        )

    def close(self) -> None:
        """Close both sessions."""
        for session in self.sessions:
            session.close()

    def certificate_renewed(self, now: int) -> bool:
        """Return whether the certificate was renewed since the sessions opened; checks every 5 s.

        Dialers read the certificate for every connection.
        """
        if now - self._certificate_checked_ns <= _CREDENTIALS_NS:
            return False
        self._certificate_checked_ns = now
        changed = self._certificate_time()
        if changed in (0, self._certificate):
            return False
        self._certificate = changed
        return True

    def _certificate_time(self) -> int:
        if self._credentials is None:
            return 0
        try:
            return (self._credentials / "cert.pem").stat().st_mtime_ns
        except OSError:
            return 0


def _port_of(session: LinkSession) -> int:
    return int(session.endpoint.rpartition(":")[2])
