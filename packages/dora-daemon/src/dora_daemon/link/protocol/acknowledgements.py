"""When the receiver of a stream acknowledges what it has stored."""

from __future__ import annotations

from typing import Final

LARGE: Final = 64 * 1024
"""A larger message is acknowledged at once: its sender keeps memory for it."""
MAX_BYTES: Final = 1024 * 1024
"""Bytes of smaller messages after which an acknowledgement does not wait."""


class AckPolicy:
    """Counts the stored messages of one stream since its last acknowledgement at once."""

    def __init__(self) -> None:
        self._max_messages = 1
        self._messages = 0
        self._bytes = 0
        self._waiting = False
        self._at_once = False

    def begin_round(self, window: int) -> None:
        """Do not let acknowledgements wait for more than a quarter of the sender's window."""
        self._max_messages = max(1, window // 4)

    def stored(self, nbytes: int) -> None:
        """Count a stored message."""
        self._messages += 1
        self._bytes += nbytes
        self._waiting = True
        if nbytes > LARGE or self._messages >= self._max_messages or self._bytes >= MAX_BYTES:
            self._at_once = True
            self._messages = self._bytes = 0

    def take(self) -> bool | None:
        """Return whether to acknowledge at once; None if nothing was stored since the last call."""
        if not self._waiting:
            return None
        at_once, self._waiting, self._at_once = self._at_once, False, False
        return at_once
