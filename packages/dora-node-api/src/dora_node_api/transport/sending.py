"""The sending end of a node: one copy into shared memory, then a record for every edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dora_node_api.transport.board import Board
from dora_node_api.transport.pool import Pool
from dora_node_api.transport.queue import QueueEnds
from dora_node_api.transport.specs import QueueSpec

if TYPE_CHECKING:
    from dora_node_api.arrow import EncodedPayload

WaitForRoom = Callable[[QueueSpec, int, float], bool]
"""Called as ``wait_for_room(spec, fd, timeout)`` when a backpressure queue is full.

It must come back with True once ``fd`` is readable or ``timeout`` seconds have passed (the sender
then looks again), or with False to give this one message up on this edge (counted as dropped), or
raise to give the whole send up. The sender's locks for other outputs are free meanwhile; add_route
and remove_route may be called within.
"""
OnFirstDrop = Callable[[QueueSpec, str], None]
"""Called once per edge, after the send, with a sentence that names the setting to change."""


class Sample:
    """A block to be filled in place and then sent (b.4). Gives its memory back when dropped."""

    nbytes: int

    def as_buffer(self) -> object:
        """The same writable buffer object each time. Raises BufferError after send."""
        raise NotImplementedError

    def as_memoryview(self) -> memoryview:
        """A new writable memoryview each time. Raises SampleError after send."""
        raise NotImplementedError

    def discard(self) -> None:
        """Give the memory back unsent."""
        raise NotImplementedError


class Sender:
    """Sends a node's outputs. Thread-safe; unusable in forked children (NodeForked)."""

    def __init__(
        self,
        pool: Pool,
        board: Board,
        incarnation: int,
        *,
        wait_for_room: WaitForRoom | None = None,
        on_first_drop: OnFirstDrop | None = None,
    ) -> None:
        raise NotImplementedError

    def add_route(self, output: str, spec: QueueSpec, ends: QueueEnds) -> None:
        """Send ``output`` to this queue too from now on. Takes ``ends`` over."""
        raise NotImplementedError

    def remove_route(self, queue: int) -> None:
        """Stop sending to a queue, close its descriptors, free what was outstanding on it.

        An unknown number is ignored. A send that waits for the queue goes on without it.
        """
        raise NotImplementedError

    def routes(self, output: str) -> int:
        """How many queues ``output`` goes to."""
        raise NotImplementedError

    def send(
        self,
        output: str,
        payload: EncodedPayload,
        *,
        protected: bool = False,
        flush: bool = False,
        timestamp_ns: int | None = None,
    ) -> int:
        """Send one message to every queue of ``output``; returns how many took it.

        drop_oldest queues are served first, then backpressure queues are waited for.
        ``timestamp_ns`` (CLOCK_REALTIME) defaults to now. Without routes nothing is copied.
        Raises PoolExhausted, NodeForked, and what ``wait_for_room`` raises.
        """
        raise NotImplementedError

    def allocate_sample(self, nbytes: int, metadata: bytes = b"") -> Sample:
        """Memory for ``nbytes`` bytes that the receivers see as a UInt8Array.

        ``metadata`` comes from `arrow.encode_metadata`. Raises PoolExhausted.
        """
        raise NotImplementedError

    def send_sample(
        self, output: str, sample: Sample, *, protected: bool = False, flush: bool = False
    ) -> int:
        """Send a sample, without a copy. Raises SampleError if views of it are open or it was
        sent or discarded before; nothing is sent then."""
        raise NotImplementedError

    def held_bytes(self) -> dict[str, int]:
        """Bytes outstanding by edge."""
        raise NotImplementedError

    def close(self) -> None:
        """Close every route and the pool. What was sent stays readable."""
        raise NotImplementedError
