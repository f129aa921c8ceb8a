"""One input's queue: its pipes, and the runner's side of it. Knows nothing of payloads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dora_node_api.transport.specs import QueueSpec

if TYPE_CHECKING:
    from dora_node_api.transport.board import Board
    from dora_node_api.transport.statistics import EdgeStatistics


class QueueEnds:
    """Descriptors of a queue in this process; -1 where this process has none.

    `data` carries ordinary messages, `urgent` protected ones and what ends or changes the input,
    `room` (backpressure only) the consumer's word to a waiting producer that there is room.
    """

    data_read: int
    data_write: int
    urgent_read: int
    urgent_write: int
    room_read: int
    room_write: int

    def for_producer(self) -> list[int]:
        """What to send to the producer, for `from_producer_fds`. Not duplicated."""
        raise NotImplementedError

    def for_consumer(self) -> list[int]:
        """What to send to the consumer, for `from_consumer_fds`. Not duplicated."""
        raise NotImplementedError

    @classmethod
    def from_producer_fds(cls, fds: Sequence[int]) -> QueueEnds:
        """Take over the descriptors received by a producer. Raises ValueError for a wrong number."""
        raise NotImplementedError

    @classmethod
    def from_consumer_fds(cls, fds: Sequence[int]) -> QueueEnds:
        """Take over the descriptors received by a consumer. Raises ValueError for a wrong number."""
        raise NotImplementedError

    def depth(self) -> int:
        """Records that wait in the pipes."""
        raise NotImplementedError

    def close(self) -> None:
        """Close every descriptor of this process. May be called twice."""
        raise NotImplementedError


def create_queue(spec: QueueSpec) -> QueueEnds:
    """Make the pipes of a queue (runner). Raises ValueError for a bound that no pipe can hold."""
    raise NotImplementedError


class QueueKeeper:
    """The runner's side of a queue: it alone writes what ends or changes the input.

    Announce only after the producer was reaped (or has never run) and before it is started again.
    What did not fit into a full pipe is kept; call `retry` now and then while `needs_retry`.
    """

    def __init__(self, board: Board, spec: QueueSpec, ends: QueueEnds) -> None:
        self.board = board
        self.spec = spec
        self.ends = ends

    @property
    def needs_retry(self) -> bool:
        raise NotImplementedError

    def retry(self) -> None:
        raise NotImplementedError

    def announce_closed(self) -> None:
        """The input brings nothing more."""
        raise NotImplementedError

    def announce_restarted(self) -> None:
        """The producer is about to be started again."""
        raise NotImplementedError

    def announce_failed(self, error: str) -> None:
        """The producer failed for good. ``error`` is cut at 2 KB. Follow it by `announce_closed`."""
        raise NotImplementedError

    def consumer_died(self) -> None:
        """After the consumer was reaped: what it held is free, and a waiting producer looks again."""
        raise NotImplementedError

    def ring_room(self) -> None:
        """Make a producer that waits for room look again."""
        raise NotImplementedError

    def sent_sequence(self) -> int:
        """The last sequence number given out; read it when a producer was reaped."""
        raise NotImplementedError

    def may_reference(self, sequence: int) -> bool:
        """Whether a record up to ``sequence`` may still be queued or about to be opened.

        A dead producer's segments may be closed once this is False, with the number that
        `sent_sequence` gave after it was reaped, for every queue that it sent to.
        """
        raise NotImplementedError

    def statistics(self) -> EdgeStatistics:
        raise NotImplementedError

    def close(self) -> None:
        """Close the runner's descriptors and free the edge's area on the board."""
        raise NotImplementedError
