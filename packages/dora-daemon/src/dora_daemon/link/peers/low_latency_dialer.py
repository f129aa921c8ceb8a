"""Opens the low-latency connection to a peer, once the ordinary one that we dialed is in use."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from dora_config.access import address_text
from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.io.connect_errors import split_address
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.peers.peer import PeerLink
from dora_daemon.link.protocol.access import Channel

_CONNECT_SECONDS: Final = 1.0
"""Timeout of each step; the thread cannot replace a lost ordinary connection meanwhile."""
_FIRST_PAUSE: Final = 0.05
_MAX_PAUSE: Final = 30.0
_LOOK_AGAIN: Final = 5.0
_REPEAT: Final = 0.05
_ATTEMPTS: Final = 20


class LowLatencyDialer:
    """Dials from the thread of the peer's `Dialer`; a failure leaves the ordinary connection."""

    def __init__(
        self,
        peer: PeerLink,
        credentials: Path | None,
        channel: Callable[[], Channel],
        prepare: Callable[[LinkSession], None],
    ) -> None:
        self._peer = peer
        self._credentials = credentials
        self._channel = channel
        self._prepare = prepare
        self._ordinary: LinkSession | None = None
        self._session: LinkSession | None = None
        self._pause = _FIRST_PAUSE

    def wanted(self, ordinary: LinkSession | None) -> None:
        """Connect beside this session, from the next `dial` on."""
        self._ordinary = ordinary
        self._pause = _FIRST_PAUSE

    def pause(self) -> float | None:
        """Return the seconds until the next `dial`; None: not before `wanted`."""
        peer, session = self._peer, self._session
        if self._ordinary is None or self._ordinary is not peer.session:
            return None
        if session is not None and peer.low_latency.session is session:
            return _LOOK_AGAIN
        return self._pause

    def dial(self) -> None:
        """Connect if the connection is missing."""
        peer = self._peer
        theirs, ordinary = peer.known.their_hello, self._ordinary
        if peer.low_latency.session is not None or ordinary is None or theirs is None:
            return
        self._close()
        if not (peer.confirmed and theirs.low_latency_port):
            self._pause = min(2 * self._pause, _MAX_PAUSE)
            return
        endpoint = address_text(split_address(ordinary.endpoint)[0], theirs.low_latency_port)
        try:
            self._session = session = LinkSession.dial(
                endpoint,
                self._credentials,
                self._channel(),
                seconds=_CONNECT_SECONDS,
                low_latency=True,
            )
            self._prepare(session)
            # The peer's subscription reaches this session at any time; what is sent before is lost.
            for _ in range(_ATTEMPTS):
                peer.open_low_latency(session, wants_answer=True)
                time.sleep(_REPEAT)
                if peer.low_latency.session is session:
                    self._pause = _FIRST_PAUSE
                    return
        except (CannotConnect, ConnectionError):
            pass
        self._close()
        self._pause = min(2 * self._pause, _MAX_PAUSE)

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
