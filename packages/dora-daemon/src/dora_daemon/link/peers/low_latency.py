"""Low-latency connection to one peer, beside the ordinary one.

A put over an ordinary connection passes the frame to a thread of Zenoh, which costs a wake-up for
each message. A put over this one encrypts and writes the frame itself. It has no priorities, and a
put cannot be cancelled while it waits for a full connection. So it carries small messages
only, and only while so few bytes are unacknowledged that the kernel's send buffer has room for
them; everything else goes over the ordinary connection. Frames of the two overtake each other:
the receiver restores the order, and discards what a new round repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from dora_daemon.link.io.session import LinkSession
from dora_daemon.link.protocol.frames import MAX_PARTED

MAX_UNACKNOWLEDGED: Final = 128 * 1024
"""Bytes of messages in flight, less than half of the connection's send buffer."""

MIN_PORTS: Final = 10
"""Smallest range of ports that serves low-latency connections too."""

Put = Callable[[bytes], None]


def low_latency_ports(ports: Collection[int]) -> list[int]:
    """Return the ports for low-latency connections, the first choice first.

    They are the second half of the range; ordinary connections use the first.
    """
    if len(ports) < MIN_PORTS:
        return []
    return sorted(ports, reverse=True)[: len(ports) // 2]


class LowLatencyPath:
    """Choice of frames for the low-latency connection. One thread at a time calls `take`."""

    def __init__(self, unacknowledged: Callable[[], int]) -> None:
        """``unacknowledged`` returns the bytes of small messages in flight to the peer."""
        self.session: LinkSession | None = None
        self._zid = ""
        self._put: Put | None = None
        self._unacknowledged = unacknowledged
        self._bytes = 0
        """Upper bound of the bytes in flight."""

    def use(self, session: LinkSession, zid: str, put: Put) -> None:
        """Send over this session from now on; ``zid``: Zenoh id of the peer's session."""
        self.session, self._zid, self._put = session, zid, put

    def drop(self, session: LinkSession) -> bool:
        """Do not use a session any more; return whether it was in use."""
        if self.session is not session:
            return False
        self.forget()
        return True

    def forget(self) -> None:
        """Do not use the session any more."""
        self._put = self.session = None

    def uses(self, session: LinkSession, zid: str) -> bool:
        """Return whether it is connected by ``session`` to the peer's session of this Zenoh id."""
        return self.session is session and self._zid == zid

    def take(self, nbytes: int) -> Put | None:
        """Return the function that sends a frame of ``nbytes``; None: use the ordinary one."""
        put = self._put
        if put is None or nbytes > MAX_PARTED:
            return None
        self._bytes += nbytes
        if self._bytes > MAX_UNACKNOWLEDGED:
            # Acknowledgements are not subtracted one by one: they cost more than this sum.
            self._bytes = self._unacknowledged()
            if self._bytes > MAX_UNACKNOWLEDGED:
                return None
        return put
