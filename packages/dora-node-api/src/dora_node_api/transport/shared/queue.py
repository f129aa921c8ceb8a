"""The pipes of one input's queue.

An input has a *data* pipe for ordinary messages and an *urgent* pipe for protected messages and
lifecycle records (input closed, node restarted, node failed). Both ends are non-blocking, and a
record is one atomic write or read, so the process that has read a record owns it. The producer
holds the read end of the data pipe too, to drop the oldest message of a full input. A
`backpressure` input drops nothing, uses its data pipe for everything, and has a third pipe by which
the consumer wakes a waiting producer. `producer/route.py` decides who drops or waits.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios
from collections.abc import Sequence

from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.layout import RECORD_SIZE
from dora_node_api.transport.shared.specs import QueueSpec

_RECORDS_PER_PAGE = layout.PAGE // RECORD_SIZE
_MIN_URGENT_RECORDS = 256
"""Smallest number of protected messages that fit an urgent pipe, besides lifecycle records."""


class QueueEnds:
    """Descriptors of a queue in this process; -1 where this process has none.

    `data` carries ordinary messages, `urgent` protected ones and lifecycle records, `room`
    (backpressure only) the bytes by which the consumer wakes a waiting producer.
    """

    __slots__ = (
        *("data_read", "data_write", "room_read", "room_write", "urgent_read", "urgent_write"),
    )

    data_read: int
    data_write: int
    urgent_read: int
    urgent_write: int
    room_read: int
    room_write: int

    def __init__(self, **descriptors: int) -> None:
        for name in self.__slots__:
            setattr(self, name, descriptors.get(name, -1))

    def for_producer(self) -> list[int]:
        """Return the descriptors for the producer (`from_producer_fds`), not duplicated."""
        ends = [self.data_read, self.data_write, self.urgent_write]
        return ends if self.room_read < 0 else [*ends, self.room_read]

    def for_consumer(self) -> list[int]:
        """Return the descriptors for the consumer (`from_consumer_fds`), not duplicated."""
        ends = [self.data_read, self.urgent_read]
        return ends if self.room_write < 0 else [*ends, self.room_write]

    @classmethod
    def from_producer_fds(cls, fds: Sequence[int]) -> QueueEnds:
        """Take over a producer's descriptors. Raises ValueError for a wrong number of them."""
        if len(fds) not in (3, 4):
            raise ValueError(f"a producer needs 3 or 4 descriptors of a queue, not {len(fds)}")
        room = fds[3] if len(fds) == 4 else -1
        return cls(data_read=fds[0], data_write=fds[1], urgent_write=fds[2], room_read=room)

    @classmethod
    def from_consumer_fds(cls, fds: Sequence[int]) -> QueueEnds:
        """Take over a consumer's descriptors. Raises ValueError for a wrong number of them."""
        if len(fds) not in (2, 3):
            raise ValueError(f"a consumer needs 2 or 3 descriptors of a queue, not {len(fds)}")
        room = fds[2] if len(fds) == 3 else -1
        return cls(data_read=fds[0], urgent_read=fds[1], room_write=room)

    def depth(self) -> int:
        """Return the number of records in the pipes that this process has."""
        waiting = bytes_waiting(self.data_read) if self.data_read >= 0 else 0
        urgent = self.urgent_read if self.urgent_read >= 0 else self.urgent_write
        waiting += bytes_waiting(urgent) if urgent >= 0 else 0
        return waiting // RECORD_SIZE

    def close(self) -> None:
        """Close every descriptor of this process. May be called twice."""
        for name in self.__slots__:
            if (fd := getattr(self, name)) >= 0:
                setattr(self, name, -1)
                with contextlib.suppress(OSError):
                    os.close(fd)


def bytes_waiting(fd: int) -> int:
    """Return the bytes in a pipe, by either of its ends."""
    count = array.array("i", (0,))
    fcntl.ioctl(fd, termios.FIONREAD, count)
    return count[0]


def pipe_capacity(fd: int) -> int:
    """Return the number of records that fit into a pipe, however its pages are used."""
    # The page that is being read counts as used until its last record was read.
    pages = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // layout.PAGE - 1
    return max(pages, 1) * _RECORDS_PER_PAGE


def _make_pipe(records: int) -> tuple[int, int]:
    """Return a non-blocking pipe for ``records``; small, because of the user's limit."""
    read, write = os.pipe()
    for end in (read, write):
        os.set_blocking(end, False)
    pages = -(-records // _RECORDS_PER_PAGE) + 1
    # The kernel refuses sizes beyond the user's limit. Then the pipe stays smaller, it counts as a
    # full queue earlier, and `shortfall` returns the reason.
    with contextlib.suppress(OSError):
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, pages * layout.PAGE)
    return read, write


def create_queue(spec: QueueSpec) -> QueueEnds:
    """Make the pipes of a queue (runner).

    Raises ValueError for a bound that no pipe can hold, OSError without free descriptors.
    """
    if not 1 <= spec.bound <= layout.MAX_BOUND:
        raise ValueError(
            f"queue_size of {spec.consumer}/{spec.input} is {spec.bound}; "
            f"it must be 1 to {layout.MAX_BOUND}"
        )
    ends = QueueEnds()
    try:
        room = layout.LIFECYCLE_ROOM
        ends.data_read, ends.data_write = _make_pipe(spec.bound + room)
        if spec.backpressure:
            ends.urgent_read, ends.urgent_write = _make_pipe(1)
            ends.room_read, ends.room_write = _make_pipe(1)
        else:
            urgent = min(max(spec.bound, _MIN_URGENT_RECORDS), layout.MAX_BOUND)
            ends.urgent_read, ends.urgent_write = _make_pipe(urgent + room)
    except BaseException:
        ends.close()
        raise
    return ends


def shortfall(spec: QueueSpec, ends: QueueEnds) -> str | None:
    """Return why a queue's pipe holds less than its bound, and the remedy; None if it does not."""
    holds = pipe_capacity(ends.data_write)
    if holds >= spec.bound:
        return None
    return (
        f"its pipe holds {holds} of {spec.bound} messages (queue_size): the pipes of this user "
        "have reached the system's limit. Set a smaller `queue_size` where it is large, or raise "
        "the limits fs.pipe-user-pages-soft and fs.pipe-max-size of the system"
    )
