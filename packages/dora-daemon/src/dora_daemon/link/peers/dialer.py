"""Connects to a peer: a thread that dials its endpoints until a session exists.

Of two links, the one whose machine comes first in the alphabet dials at once, the other one only if
no connection came: a router that passes connections in one direction is enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dora_config.access import address_text
from dora_config.retry import Retry, RetryPolicy
from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.io.connect_errors import is_open, probed, split_address
from dora_daemon.link.io.session import CONNECT_SECONDS, LinkSession
from dora_daemon.link.io.thread_guard import guarded
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.protocol.access import PeerKeys
from dora_daemon.link.protocol.status import other_security

_ATTEMPTS: Final = RetryPolicy(first=0.1, longest=1.0)
"""Attempts to connect to all endpoints."""
_TIMEOUTS: Final = RetryPolicy(first=CONNECT_SECONDS, longest=12.0)
"""Seconds for one step of connecting, by the number of failures: a network with 30 % loss often
needs more than CONNECT_SECONDS."""
_WAIT_FOR_PEER = 1.5
"""Seconds that the second of two links waits for a connection of the first."""
_INCOMPATIBLE_PAUSE = 30.0
"""Seconds between connections to a link of another version, until its part is started again."""
_SEARCH_PAUSE: Final = 5.0
"""Seconds without success between two searches of other ports."""
_SLOW_CONNECT = 0.1
"""Seconds to open a TCP connection from which the peer counts as slow."""
_LOW_LATENCY_TIMEOUT: Final = 1.0
"""Seconds for each step of a low-latency connection; short, because the thread cannot replace a
lost ordinary connection meanwhile."""
_LOW_LATENCY_ATTEMPTS: Final = RetryPolicy(first=0.05, longest=30.0)
_LOW_LATENCY_CHECK: Final = 5.0
"""Seconds between checks whether the low-latency connection is still in use."""
_OPEN_INTERVAL: Final = 0.05
"""Seconds between LOW_LATENCY frames that request the low-latency connection."""
_OPEN_ATTEMPTS: Final = 20
"""LOW_LATENCY frames without an answer after which the attempt fails."""


@dataclass(eq=False, slots=True)
class LowLatencyDialer:
    """Dials from the thread of the peer's `Dialer`; a failure leaves the ordinary connection."""

    _peer: PeerLink
    _credentials: Path | None
    _channel: Callable[[], PeerKeys]
    _prepare: Callable[[LinkSession], None]
    _ordinary: LinkSession | None = None
    _session: LinkSession | None = None
    _retry: Retry = field(default_factory=Retry)

    def wanted(self, ordinary: LinkSession | None) -> None:
        """Request a connection beside this session, from the next `dial` on."""
        self._ordinary = ordinary
        self._retry.reset()

    def pause(self) -> float | None:
        """Return the seconds until the next `dial`; None: wait for a call of `wanted`."""
        peer = self._peer
        if self._ordinary is None or self._ordinary is not peer.session:
            return None
        if peer.low_latency.session is not None:
            return _LOW_LATENCY_CHECK
        return self._retry.wait(time.monotonic())

    def dial(self) -> None:
        """Connect if the connection is missing."""
        ordinary = self._ordinary
        if self._peer.low_latency.session is not None or ordinary is None:
            return
        self._close()
        if self._connect(ordinary):
            self._retry.reset()
        else:
            self._close()
            self._retry.failed(_LOW_LATENCY_ATTEMPTS, time.monotonic())

    def _connect(self, ordinary: LinkSession) -> bool:
        """Return whether the peer has answered over the connection."""
        peer, theirs = self._peer, self._peer.known.their_hello
        if theirs is None or not (peer.confirmed and theirs.low_latency_port):
            return False
        endpoint = address_text(split_address(ordinary.endpoint)[0], theirs.low_latency_port)
        try:
            self._session = session = LinkSession.dial(
                endpoint,
                self._credentials,
                self._channel(),
                seconds=_LOW_LATENCY_TIMEOUT,
                low_latency=True,
            )
            self._prepare(session)
            # Frames are lost until the peer's subscription reaches this session.
            for _ in range(_OPEN_ATTEMPTS):
                peer.open_low_latency(session, wants_answer=True)
                time.sleep(_OPEN_INTERVAL)
                if peer.low_latency.session is session:
                    return True
        except (CannotConnect, ConnectionError):
            pass
        return False

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def close(self) -> None:
        """Close the connection; `wanted` opens it again."""
        self._ordinary = None
        if self._session is not None:
            self._peer.lost_session(self._session, "the connection was closed")
        self._close()


@dataclass(eq=False)
class Dialer:
    """Keeps one peer connected until `end`."""

    peer: PeerLink
    first: bool
    """Whether to dial at once instead of waiting for the peer."""
    credentials: Path | None
    plain: bool
    ports: Sequence[int]
    """Ports of links. While the coordinator is away, a peer whose port was taken after a reboot is
    found at another one of them."""
    channel: Callable[[], PeerKeys]
    prepare: Callable[[LinkSession], None]
    changed: Callable[[PeerLink], None]
    note: Callable[[str], None]
    _searched: float = field(default_factory=time.monotonic)
    """Time of the last search, or since when the peer's address is tried."""
    _session: LinkSession | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        peer = self.peer
        self._low_latency = LowLatencyDialer(peer, self.credentials, self.channel, self.prepare)
        run = guarded(self._run, self.note)
        self._thread = threading.Thread(target=run, name=f"dial {peer.machine}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        peer = self.peer
        retry = Retry()
        while not self._ended.is_set():
            if not peer.wanted.wait(self._low_latency.pause()):
                self._low_latency.dial()
                continue
            if self._ended.is_set():
                break
            self._close()
            if peer.moved.is_set():
                peer.moved.clear()
                self._searched = time.monotonic()
                retry.reset()
            if not self.first and (self._peer_connects(_WAIT_FOR_PEER) or peer.moved.is_set()):
                continue
            if self._dial(_TIMEOUTS.delay(retry.failures)):
                retry.reset()
                self._low_latency.wanted(self._session)
                continue
            self.changed(peer)
            pause = retry.failed(_ATTEMPTS, time.monotonic())
            incompatible = peer.status.incompatible is not None
            self._peer_connects(_INCOMPATIBLE_PAUSE if incompatible else pause)
        self._close()

    def _peer_connects(self, seconds: float) -> bool:
        """Wait for a connection from the peer, at most until its run or address changes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._ended.is_set():
            if not self.peer.wanted.is_set():
                return True
            if self.peer.moved.wait(min(left, 0.05)):
                break
        return not self.peer.wanted.is_set()

    def _dial(self, timeout: float) -> bool:
        """Try every endpoint once, with ``timeout`` seconds for each step; False if all failed."""
        peer = self.peer
        if peer.plain != self.plain:
            peer.status.trouble = other_security(peer.machine, plain=peer.plain)
            return False
        problems = []
        for endpoint in peer.endpoints:
            if self._ended.is_set() or not peer.wanted.is_set():
                return True
            peer.endpoint = endpoint
            peer.status.dialing()
            if (problem := self._connect(endpoint, timeout)) is None:
                return True
            problems.append(problem)
        peer.status.trouble = "; ".join(problems) or "its address is not known yet"
        return any(self._connect(endpoint, CONNECT_SECONDS) is None for endpoint in self._others())

    def _connect(self, endpoint: str, timeout: float) -> str | None:
        """Return why the connection is missing; None if it exists, or is not needed any more."""
        peer = self.peer
        try:
            with probed(endpoint, timeout) as took:
                if took > _SLOW_CONNECT:
                    peer.slow = True
                    self.changed(peer)
                channel = self.channel()
                session = LinkSession.dial(endpoint, self.credentials, channel, seconds=timeout)
        except CannotConnect as error:
            return str(error)
        if self._ended.is_set():
            session.close()
            return None
        self._session = session
        self.prepare(session)
        peer.use(session)
        self.changed(peer)
        if self._answered(session, timeout):
            self._searched = time.monotonic()
            if peer.session is session:
                peer.found(endpoint)
            return None
        problem = f"{endpoint} is connected, but no link of this dataflow answers there"
        peer.lost_session(session, problem)
        self._close()
        return problem

    def _others(self) -> Iterator[str]:
        """Yield addresses of the peer's machine with an open port of a link."""
        peer = self.peer
        if time.monotonic() - self._searched < _SEARCH_PAUSE or not peer.endpoints:
            return
        self._searched = time.monotonic()
        host, known = split_address(peer.endpoints[-1])
        if known not in self.ports:
            return
        for port in self.ports:
            if self._ended.is_set() or not peer.wanted.is_set() or peer.moved.is_set():
                return
            endpoint = address_text(host, port)
            if (found := is_open(endpoint, CONNECT_SECONDS)) is None:
                return
            if found:
                yield endpoint

    def _answered(self, session: LinkSession, timeout: float) -> bool:
        """Wait for the peer's hello over a new connection."""
        end = time.monotonic() + timeout
        endpoints = self.peer.endpoints
        while time.monotonic() < end and not self._ended.wait(0.02):
            if self.peer.confirmed or self.peer.session is not session:
                return True
            if self.peer.status.incompatible is not None:
                break
            if self.peer.endpoints != endpoints and session.endpoint not in self.peer.endpoints:
                break
        return self.peer.confirmed

    def _close(self) -> None:
        self._low_latency.close()
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def end(self) -> None:
        """Make the thread close the session and stop; does not wait for it."""
        self._ended.set()
        self.peer.wanted.set()
        self.peer.moved.set()

    def join(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the end of the thread."""
        self._thread.join(max(0.0, seconds))
