"""Priorities of frames between two links."""

from __future__ import annotations

from enum import Enum

SMALL_BYTES = 64 * 1024
"""Largest small message, in bytes."""
MIDDLE_BYTES = 1024 * 1024
"""Size up to which a message is neither small nor large."""


class Priority(Enum):
    """Frames of one priority keep their order and do not wait for those of lower priorities."""

    CONTROL = "control"
    SMALL = "small"
    MIDDLE = "middle"
    LARGE = "large"


def priority_for(nbytes: int) -> Priority:
    """Return the priority of a message of ``nbytes``."""
    if nbytes <= SMALL_BYTES:
        return Priority.SMALL
    return Priority.MIDDLE if nbytes <= MIDDLE_BYTES else Priority.LARGE
