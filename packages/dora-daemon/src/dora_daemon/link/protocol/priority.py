"""Lanes of different priority between two links, and which one a message takes; pure."""

from __future__ import annotations

from enum import Enum

SMALL = 64 * 1024
"""Bytes up to which a message is small."""
MIDDLE = 1024 * 1024


class Lane(Enum):
    """Each keeps its own order; a lane never waits for what is in the ones after it."""

    CONTROL = "control"
    SMALL = "small"
    MIDDLE = "middle"
    LARGE = "large"


def lane_for(nbytes: int) -> Lane:
    """By the size of the whole message."""
    if nbytes <= SMALL:
        return Lane.SMALL
    return Lane.MIDDLE if nbytes <= MIDDLE else Lane.LARGE
