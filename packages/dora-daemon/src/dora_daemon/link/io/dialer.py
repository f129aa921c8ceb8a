"""Finding a way to a peer: a thread that dials its endpoints whenever there is no session.

Of two links the one whose machine comes first in the alphabet dials at once; the other one only
when nobody came, so that a router that lets connections through in one direction is enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from dora_daemon.link.errors import CannotConnect
from dora_daemon.link.io.peer import PeerLink
from dora_daemon.link.io.session import CONNECT_SECONDS, Session, probe
from dora_daemon.link.io.thread_guard import guarded

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0
_LET_THEM_COME = 1.5
"""Seconds that the second of two waits for the first."""
_MOST_PATIENCE = 12.0
"""Seconds for one step of connecting. It begins with CONNECT_SECONDS and doubles with each failure:
a link with 30 % loss often needs more than that."""
_SLOW_CONNECT = 0.1
"""Seconds for a TCP connection beyond which the way to the peer counts as slow."""


class Dialler:
    """Keeps one peer connected until it is ended."""

    def __init__(
        self,
        peer: PeerLink,
        *,
        first: bool,
        credentials: Path | None,
        prepare: Callable[[Session], None],
        changed: Callable[[PeerLink], None],
        note: Callable[[str], None],
    ) -> None:
        self._peer = peer
        self._first = first
        self._credentials = credentials
        self._prepare = prepare
        self._changed = changed
        self._session: Session | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=guarded(self._run, note), name=f"dial {peer.machine}", daemon=True
        )
        self._thread.start()

    def _run(self) -> None:
        peer = self._peer
        pause, patience = _FIRST_PAUSE, CONNECT_SECONDS
        while not self._ended.is_set():
            peer.wanted.wait()
            if self._ended.is_set():
                break
            self._close()
            if peer.moved.is_set():
                peer.moved.clear()
                pause, patience = _FIRST_PAUSE, CONNECT_SECONDS
            if not self._first and (self._somebody_came(_LET_THEM_COME) or peer.moved.is_set()):
                continue
            if self._dial(patience):
                pause, patience = _FIRST_PAUSE, CONNECT_SECONDS
                continue
            self._changed(peer)
            self._somebody_came(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            patience = min(2 * patience, _MOST_PATIENCE)
        self._close()

    def _somebody_came(self, seconds: float) -> bool:
        """Wait, at most until the peer is said to be elsewhere or to live anew; True once it is
        connected, by itself.
        """
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._ended.is_set():
            if not self._peer.wanted.is_set():
                return True
            if self._peer.moved.wait(min(left, 0.05)):
                break
        return not self._peer.wanted.is_set()

    def _dial(self, patience: float) -> bool:
        """Try every endpoint once, with ``patience`` seconds for each step."""
        peer = self._peer
        problems = []
        for endpoint in peer.endpoints:
            if self._ended.is_set() or not peer.wanted.is_set():
                return True
            peer.endpoint = endpoint
            peer.connecting()
            try:
                if probe(endpoint, patience) > _SLOW_CONNECT:
                    peer.slow = True
                    self._changed(peer)
                session = Session.dial(endpoint, self._credentials, seconds=patience)
            except CannotConnect as error:
                problems.append(str(error))
                continue
            if self._ended.is_set():
                session.close()
                return True
            self._session = session
            self._prepare(session)
            peer.use(session)
            if self._answered(session, patience):
                return True
            problem = f"{endpoint} is connected, but no link of this dataflow answers there"
            peer.lost_session(session, problem)
            problems.append(problem)
            self._close()
        peer.trouble = "; ".join(problems) or "its address is not known yet"
        return False

    def _answered(self, session: Session, patience: float) -> bool:
        """Whether the peer greets over a new connection within ``patience`` seconds."""
        end = time.monotonic() + patience
        while time.monotonic() < end and not self._ended.wait(0.02):
            if self._peer.confirmed or self._peer.session is not session:
                return True
            if session.endpoint not in self._peer.endpoints:
                break
        return self._peer.confirmed

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def end(self) -> None:
        """Have the thread close the session and stop, without waiting for it."""
        self._ended.set()
        self._peer.wanted.set()
        self._peer.moved.set()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, so long at most."""
        self._thread.join(max(0.0, seconds))
