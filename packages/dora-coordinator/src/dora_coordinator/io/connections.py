"""Sending side of open WebSocket connections.

Each connection has a bounded queue and one writer. A receiver that does not read is disconnected
once its queue is full, so that it does not delay others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream

QUEUE: Final = 4096
"""Frames that may wait for one receiver."""

Frame = tuple[str, Callable[[], None] | None]
"""Text, and what to call once it was written to the socket."""


class Renewal(Enum):
    """Time at which a daemon gets the current token on its connection."""

    NOW = auto()
    """Now: the daemon used an earlier token, or one without the hash of the authority."""
    LATER = auto()
    """Later: the token is sent when it is replaced."""


class DaemonConnection:
    """Sending side of one WebSocket."""

    def __init__(self, number: int, address: str, renewal: Renewal) -> None:
        self.number = number
        self.address = address
        self.renewal = renewal
        self.of_machine = False
        """Whether the daemon has shown the token of a machine."""
        self.daemon: str | None = None
        """Key of the daemon at the other end, once it is admitted."""
        self.same_host = False
        """Whether the daemon runs on the machine of this coordinator."""
        send, self._frames = anyio.create_memory_object_stream[Frame](QUEUE)
        self._queue: MemoryObjectSendStream[Frame] = send

    def send(self, text: str, sent: Callable[[], None] | None = None) -> None:
        """Queue a frame without waiting; hang up if the queue is full."""
        try:
            self._queue.send_nowait((text, sent))
        except anyio.WouldBlock:
            self.hang_up()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # the connection is being closed, which the reader reports

    def hang_up(self) -> None:
        """Close the connection once everything queued is written."""
        self._queue.close()

    async def write(self, write_text: Callable[[str], Awaitable[None]]) -> None:
        """Write queued frames until :meth:`hang_up`; then the caller closes the socket."""
        with self._frames:
            async for text, sent in self._frames:
                await write_text(text)
                if sent is not None:
                    sent()
