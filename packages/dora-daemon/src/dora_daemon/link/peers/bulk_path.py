"""Flow control for pieces of large messages to one peer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dora_daemon.link.io import tcp_state
from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.io.tcp_state import TcpConnection
from dora_daemon.link.protocol.path_queue import PIECE, PathQueue


class BulkPath:
    """Limit of the bytes in flight on one session to one peer. Safe to call from any thread.

    If the state of its connection cannot be read, only the queues of Zenoh and TCP limit it.
    """

    def __init__(self, session: LinkSession, zid: str) -> None:
        """``zid``: Zenoh id of the peer's session."""
        self.session, self.zid = session, zid
        self._connection = session.connection(zid)
        self._queue = PathQueue()
        self._lock = threading.Lock()
        self._left = 0
        """Bytes that may be sent before the connection is read again."""

    def room(self, most: int, stop: Callable[[], bool]) -> int:
        """Wait until a piece may be sent; return its size in bytes, at most ``most``.

        ``stop``: returns whether to stop waiting, because the piece will not be sent.
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
        """Read the connection; return the nanoseconds until the next read, 0: more may be sent."""
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
