"""Decides when a node connects to a viewer, and when its messages are dropped; pure."""

from __future__ import annotations

from enum import Enum

RETRY_SECONDS = 1.0
"""Between two attempts, and between two checks of a connection."""


class LinkStep(Enum):
    """What to do next."""

    NOTHING = 0
    CONNECT = 1
    """Connect, then report the result with `connected` or `lost`."""
    CHECK = 2
    """Check the connection; report `lost` if it is broken."""


class ViewerLink:
    """State of the connection to a viewer, which may start later, close and come back."""

    def __init__(self) -> None:
        self.open = False
        """Whether messages can be sent; others are dropped."""
        self._next = 0.0

    def step(self, now: float) -> LinkStep:
        """``now``: seconds of a monotonic clock."""
        if now < self._next:
            return LinkStep.NOTHING
        self._next = now + RETRY_SECONDS
        return LinkStep.CHECK if self.open else LinkStep.CONNECT

    def connected(self) -> None:
        self.open = True

    def lost(self) -> bool:
        """Return whether the connection was open, which is worth a warning."""
        was_open, self.open = self.open, False
        return was_open
