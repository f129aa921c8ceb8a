"""One input's queue: its pipes, and the runner's side of it. Knows nothing of payloads.

An input has a *data* pipe for ordinary messages and an *urgent* one for protected messages and for
what ends or changes the input. Both ends are non-blocking, and a record is one atomic write or
read, so whoever has read a record owns it. The producer holds the read end of the data pipe too:
that is how it drops the oldest message of a full input. A `backpressure` input never drops, uses
its data pipe for everything, and has a third pipe by which the consumer wakes a waiting producer.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.layout import RECORD_SIZE, RecordKind
from dora_node_api.transport.shared.specs import QueueSpec

if TYPE_CHECKING:
    from dora_node_api.transport.shared.board import Board
    from dora_node_api.transport.shared.statistics import EdgeStatistics

_RECORDS_PER_PAGE = layout.PAGE // RECORD_SIZE
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)
_GET_SIZE = getattr(fcntl, "F_GETPIPE_SZ", None)
# Protected messages that an urgent pipe holds at least, beside the room for lifecycle records.
_URGENT_AT_LEAST = 256


class QueueEnds:
    """Descriptors of a queue in this process; -1 where this process has none.

    `data` carries ordinary messages, `urgent` protected ones and what ends or changes the input,
    `room` (backpressure only) the consumer's word to a waiting producer that there is room.
    """

    __slots__ = (
        "data_read",
        "data_write",
        "room_read",
        "room_write",
        "urgent_read",
        "urgent_write",
    )

    def __init__(
        self,
        *,
        data_read: int = -1,
        data_write: int = -1,
        urgent_read: int = -1,
        urgent_write: int = -1,
        room_read: int = -1,
        room_write: int = -1,
    ) -> None:
        self.data_read = data_read
        self.data_write = data_write
        self.urgent_read = urgent_read
        self.urgent_write = urgent_write
        self.room_read = room_read
        self.room_write = room_write

    def for_producer(self) -> list[int]:
        """What to send to the producer, for `from_producer_fds`. Not duplicated."""
        ends = [self.data_read, self.data_write, self.urgent_write]
        return ends if self.room_read < 0 else [*ends, self.room_read]

    def for_consumer(self) -> list[int]:
        """What to send to the consumer, for `from_consumer_fds`. Not duplicated."""
        ends = [self.data_read, self.urgent_read]
        return ends if self.room_write < 0 else [*ends, self.room_write]

    @classmethod
    def from_producer_fds(cls, fds: Sequence[int]) -> QueueEnds:
        """Take over what a producer received. Raises ValueError for the number of descriptors."""
        if len(fds) not in (3, 4):
            raise ValueError(f"a producer gets 3 or 4 descriptors of a queue, not {len(fds)}")
        room = fds[3] if len(fds) == 4 else -1
        return cls(data_read=fds[0], data_write=fds[1], urgent_write=fds[2], room_read=room)

    @classmethod
    def from_consumer_fds(cls, fds: Sequence[int]) -> QueueEnds:
        """Take over what a consumer received. Raises ValueError for the number of descriptors."""
        if len(fds) not in (2, 3):
            raise ValueError(f"a consumer gets 2 or 3 descriptors of a queue, not {len(fds)}")
        room = fds[2] if len(fds) == 3 else -1
        return cls(data_read=fds[0], urgent_read=fds[1], room_write=room)

    def depth(self) -> int:
        """Records that wait in the pipes (of those that this process can see)."""
        waiting = bytes_waiting(self.data_read) if self.data_read >= 0 else 0
        urgent = self.urgent_read if self.urgent_read >= 0 else self.urgent_write
        waiting += bytes_waiting(urgent) if urgent >= 0 else 0
        return waiting // RECORD_SIZE

    def close(self) -> None:
        """Close every descriptor of this process. May be called twice, and repeated when a signal
        handler has raised."""
        for name in self.__slots__:
            if (fd := getattr(self, name)) >= 0:
                try:  # without a call after it, so that none is closed twice
                    os.close(fd)
                except OSError:
                    pass
                finally:
                    setattr(self, name, -1)


def bytes_waiting(fd: int) -> int:
    """Bytes in a pipe, by either of its ends."""
    count = array.array("i", (0,))
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def pipe_capacity(fd: int) -> int:
    """Records that a pipe certainly takes, however its pages are used at the moment."""
    size = fcntl.fcntl(fd, _GET_SIZE) if _GET_SIZE is not None else 4 * layout.PAGE
    # The page that is being read counts as used until its last record has gone.
    return max(size // layout.PAGE - 1, 1) * _RECORDS_PER_PAGE


def _make_pipe(records: int) -> tuple[int, int]:
    """A non-blocking pipe for so many records, as small as may be: users have a limit on all."""
    read, write = os.pipe()
    for end in (read, write):
        os.set_blocking(end, False)
    if _SET_SIZE is not None:
        pages = -(-records // _RECORDS_PER_PAGE) + 1
        # Refused past the user's limit; what we got is then as good as it gets, a full pipe is
        # treated as a full queue, and `shortfall` has the words for it.
        with contextlib.suppress(OSError):
            fcntl.fcntl(write, _SET_SIZE, pages * layout.PAGE)
    return read, write


def create_queue(spec: QueueSpec) -> QueueEnds:
    """Make the pipes of a queue (runner).

    Raises ValueError for a bound that no pipe can hold, OSError without descriptors left.
    """
    if not 1 <= spec.bound <= layout.LARGEST_BOUND:
        raise ValueError(
            f"queue_size of {spec.consumer}/{spec.input} is {spec.bound}; "
            f"it must be 1 to {layout.LARGEST_BOUND}"
        )
    ends = QueueEnds()
    try:
        room = layout.LIFECYCLE_ROOM
        ends.data_read, ends.data_write = _make_pipe(spec.bound + room)
        if spec.backpressure:
            ends.urgent_read, ends.urgent_write = _make_pipe(1)
            ends.room_read, ends.room_write = _make_pipe(1)
        else:
            urgent = min(max(spec.bound, _URGENT_AT_LEAST), layout.LARGEST_BOUND)
            ends.urgent_read, ends.urgent_write = _make_pipe(urgent + room)
    except BaseException:
        ends.close()
        raise
    return ends


def shortfall(spec: QueueSpec, ends: QueueEnds) -> str | None:
    """Why the pipe of a queue holds less than its bound, and what helps; None if it does not."""
    holds = pipe_capacity(ends.data_write)
    if holds >= spec.bound:
        return None
    return (
        f"of queue_size {spec.bound} its pipe holds {holds} messages: the pipes of this user take "
        "all the memory that the system grants them. Set a smaller `queue_size` where it is large, "
        "or raise the limits fs.pipe-user-pages-soft and fs.pipe-max-size of the system"
    )


class QueueKeeper:
    """The runner's side of a queue: it alone writes what ends or changes the input.

    Announce only after the producer was reaped (or has never run) and before it is started again:
    both write the same sequence. What did not fit into a full pipe is kept; call `retry` now and
    then while `needs_retry`.
    """

    def __init__(self, board: Board, spec: QueueSpec, ends: QueueEnds) -> None:
        self.board = board
        self.spec = spec
        self.ends = ends
        self._words = board.edge_words(spec.area)
        self._notice = board.notice(spec.area)
        self._write_end = ends.data_write if spec.backpressure else ends.urgent_write
        self._pending: deque[RecordKind] = deque()

    @property
    def needs_retry(self) -> bool:
        return bool(self._pending)

    def retry(self) -> None:
        """Write what did not fit before."""
        while self._pending and self._write(self._pending[0]):
            self._pending.popleft()

    def announce_closed(self) -> None:
        """The input brings nothing more."""
        self._announce(RecordKind.CLOSED)

    def announce_restarted(self) -> None:
        """The producer is about to be started again.

        Left out when the consumer has read nothing for tens of restarts: the news must not be
        written once the producer runs again.
        """
        self.retry()
        if not self._pending:
            self._write(RecordKind.NODE_RESTARTED)

    def announce_failed(self, error: str) -> None:
        """The producer failed for good; ``error`` is cut at 2 KB. Call `announce_closed` next."""
        text = error.encode("utf-8", "replace")[: layout.NOTICE_SIZE]
        self._notice[: len(text)] = text
        self._words[layout.X_NOTICE_LENGTH] = len(text)
        self._announce(RecordKind.NODE_FAILED)

    def _announce(self, kind: RecordKind) -> None:
        self._pending.append(kind)
        self.retry()

    def _write(self, kind: RecordKind) -> bool:
        words = self._words
        sequence = words[layout.P_SENT] + 1
        tags = layout.pack_tags(layout.NO_SLOT, 0, kind, layout.FLAG_PROTECTED)
        record = layout.RECORD.pack(sequence, 0, 0, 0, 0, 0, tags, sequence ^ layout.CHECK)
        words[layout.P_SENT] = sequence
        try:
            os.write(self._write_end, record)
        except BlockingIOError:
            words[layout.P_SENT] = sequence - 1
            return False
        return True

    def consumer_died(self) -> None:
        """After the consumer was reaped: what it held is free; a waiting producer looks again.

        With a journal nothing is free: the next process takes over what the dead one held.
        """
        words = self._words
        if self.spec.journal:
            self.ring_room()
            return
        words[layout.F_FLOOR_DATA] = max(words[layout.F_FLOOR_DATA], words[layout.C_LAST_DATA] + 1)
        words[layout.F_FLOOR_URGENT] = max(
            words[layout.F_FLOOR_URGENT], words[layout.C_LAST_URGENT] + 1
        )
        words[layout.X_CONSUMER_DEAD] = 1
        self.ring_room()

    def ring_room(self) -> None:
        """Make a producer that waits for room look again."""
        if self.ends.room_write >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self.ends.room_write, b"\0")

    def sent_sequence(self) -> int:
        """The last sequence number given out; read it when a producer was reaped."""
        return int(self._words[layout.P_SENT])

    def may_reference(self, sequence: int) -> bool:
        """Whether a record up to ``sequence`` may still be queued or about to be opened.

        A dead producer's segments may be closed once this is False, with the number that
        `sent_sequence` gave after it was reaped, for every queue that it sent to.
        """
        words = self._words
        settled = layout.C_ACKNOWLEDGED if self.spec.journal else layout.C_SETTLED
        if words[settled] >= sequence:
            return False
        depth = self.ends.depth()
        # Between its read and its stores a consumer may wait for the GIL, or be killed: what has
        # left the pipes and is not counted is in its hand. The order of these looks is its stores'
        # reversed.
        left = words[layout.P_SENT] - words[layout.P_EVICTED] - words[layout.P_REFUSED]
        uncounted = left - words[layout.C_RECEIVED] - depth
        taken = max(words[layout.C_LAST_DATA], words[layout.C_LAST_URGENT])
        in_hand = uncounted > 0 or taken > words[settled]
        if in_hand and not words[layout.X_CONSUMER_DEAD]:
            return True
        if not depth or self.spec.journal:
            return depth > 0
        evicted = words[layout.P_EVICTED_SEQUENCE] >= sequence
        return not evicted or bytes_waiting(self.ends.urgent_read) > 0

    def statistics(self) -> EdgeStatistics:
        """The edge's counters at this moment."""
        from dora_node_api.transport.shared.statistics import read_statistics

        return read_statistics(self.board, self.spec, self.ends)

    def close(self) -> None:
        """Close the runner's descriptors and free the edge's area on the board."""
        self.ends.close()
        if self._words[layout.X_CONSUMER_DEAD]:
            self.board.free_edge(self.spec.area)
