"""Policies for messages at a full queue."""

from __future__ import annotations

from enum import StrEnum


class QueuePolicy(StrEnum):
    """The values of `queue_policy` in a dataflow file."""

    DROP_OLDEST = "drop_oldest"
    """The oldest waiting message is dropped."""
    BACKPRESSURE = "backpressure"
    """The sender waits until there is room."""
