"""Pieces of large messages to one peer, which wait until its path takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dora_daemon.link.io import tcp_state
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.io.tcp_state import TcpConnection
from dora_daemon.link.protocol.path_queue import PIECE, PathQueue


class BulkPath:
    """The path of one session to one peer. Any thread.

    Without a connection that can be read it lets everything pass: the queues of Zenoh and TCP then
    are the only limits.
    """

    def __init__(self, session: LinkSession, zid: str) -> None:
        """``zid``: Zenoh id of the peer's session."""
        self.session, self.zid = session, zid
        self._connection = session.connection(zid)
        self._queue = PathQueue()
        self._lock = threading.Lock()
        self._left = 0
        """Bytes that the path still takes without another look."""

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        """Wait until the path takes a piece; return its size in bytes, at most ``most``.

        ``stop``: whether to return at once, because the piece is not sent any more.
        """
        while self._connection is not None and not stop():
            with self._lock:
                pause = 0 if self._left >= min(most, PIECE) else self._look(self._connection)
                if not pause:
                    size = min(most, self._left)
                    self._left -= size
                    return size
            time.sleep(pause / 1e9)
        return most

    def _look(self, connection: TcpConnection) -> int:
        """Return the nanoseconds until the next look; 0: the path takes more."""
        try:
            state = tcp_state.read(connection)
        except OSError:  # the connection is closed
            self._connection = None
            return 1
        now = time.monotonic_ns()
        pause = self._queue.pause(state, now)
        if not pause:
            more = self._queue.piece()
            self._queue.put(state, more, now)
            self._left += more
        return pause
