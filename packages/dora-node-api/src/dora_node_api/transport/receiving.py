"""The receiving end of one input: the next record in order, checked, never lost."""

from __future__ import annotations

from collections.abc import Callable

from dora_node_api.transport.board import Board
from dora_node_api.transport.queue import QueueEnds
from dora_node_api.transport.received import Delivery
from dora_node_api.transport.specs import QueueSpec

OpenSegment = Callable[[int, int], tuple[int, int]]
"""Called as ``open_segment(incarnation, number)`` on a segment's first use; returns a descriptor,
which the receiver takes over, and the size. Raises LookupError for a segment that is unknown."""


class Receiver:
    """Takes the messages of one input. One thread at a time; arrays may be dropped by any thread."""

    spec: QueueSpec

    def __init__(
        self,
        spec: QueueSpec,
        ends: QueueEnds,
        board: Board,
        open_segment: OpenSegment,
        *,
        validate: bool = False,
        on_first_copy: Callable[[QueueSpec, str], None] | None = None,
    ) -> None:
        """``validate`` checks the contents of arrays in full when they are decoded.

        ``on_first_copy`` is called once when the consumer holds too much and gets copies.
        """
        raise NotImplementedError

    def receive(self) -> Delivery | None:
        """The next message in order, or None when nothing is there. Never blocks.

        Raises BrokenRecord, after the record was dropped and counted, and NodeForked. Whatever a
        signal handler raises through it loses nothing: the record comes with the next call.
        """
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether `receive` is likely to return something; no system call. May be wrong briefly
        in both directions, but never after a wake-up of `Waiter`."""
        raise NotImplementedError

    def pending(self) -> int:
        """Messages that wait, held ones included."""
        raise NotImplementedError

    def fds(self) -> tuple[int, ...]:
        """The descriptors that become readable when a record arrives."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the descriptors. Arrays handed out stay valid."""
        raise NotImplementedError
