"""Open connections and what waits to be written to them; frames out, never decisions.

Each connection has a bounded queue and one writer. A peer that does not read is disconnected once
its queue is full: it costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectSendStream

QUEUE: Final = 4096
"""Frames that may wait for one peer."""

Frame = tuple[str, Callable[[], None] | None]
"""Text, and what to call once it is with the kernel."""


class Connection:
    """One WebSocket, seen from the side that sends."""

    def __init__(self, number: int, address: str) -> None:
        self.number = number
        self.address = address
        self.daemon: str | None = None
        """Key of the daemon at the other end, once it was admitted."""
        send, self._frames = anyio.create_memory_object_stream[Frame](QUEUE)
        self._queue: MemoryObjectSendStream[Frame] = send

    def send(self, text: str, sent: Callable[[], None] | None = None) -> None:
        """Queue a frame; never waits. A peer with a full queue is hung up on."""
        try:
            self._queue.send_nowait((text, sent))
        except anyio.WouldBlock:
            self.hang_up()
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # it is on its way out; its reader tells the state

    def hang_up(self) -> None:
        """Let the writer end once it has written what is queued."""
        self._queue.close()

    async def write(self, write_text: Callable[[str], Awaitable[None]]) -> None:
        """Write queued frames until hung up; the caller closes the socket then."""
        with self._frames:
            async for text, sent in self._frames:
                await write_text(text)
                if sent is not None:
                    sent()
