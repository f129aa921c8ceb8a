"""The status board: one shared memory per dataflow with the counters of every edge and node.

Every word has one writer, and a process that attaches can write only the words that it owns: a
stray write ends the process that makes it. The board only allocates areas and returns views;
`layout.py` defines the words, and `QueueKeeper.statistics` reads them.
"""

from __future__ import annotations

import mmap
import os
from collections import deque

from dora_node_api.transport.shared import layout
from dora_node_api.transport.shared.errors import BoardFull
from dora_node_api.transport.shared.memory import (
    create_memory,
    map_memory,
    map_without_descriptor,
    protect,
    reserve,
)
from dora_node_api.transport.shared.specs import QueueSpec


class Board:
    """The mapped board. Only the runner allocates areas; nodes attach and get offsets."""

    def __init__(self, fd: int, memory: mmap.mmap | memoryview) -> None:
        """``fd`` is -1 in a process that attached."""
        self.fd = fd
        self._memory = memory
        self._bytes = memoryview(memory)
        self.size = len(self._bytes)
        # Segments that the receivers of this process have mapped, by (incarnation, number).
        self.segments: dict[tuple[int, int], object] = {}
        self._protected = False
        self._end = layout.PAGE
        self._edges: dict[int, tuple[int, int]] = {}
        """Start and size of each edge's area."""
        self._free: deque[tuple[int, int]] = deque()

    @classmethod
    def create(cls, size: int = 64 * 1024 * 1024) -> Board:
        """Make a board of ``size`` bytes. Pages are used as areas are allocated."""
        fd = create_memory("board", size)
        board = cls(fd, map_memory(fd, size, writable=True))
        board._reserve(0, layout.PAGE)
        board._bytes[:8].cast("Q")[0] = layout.BOARD_MAGIC
        return board

    @classmethod
    def attach(cls, fd: int, size: int) -> Board:
        """Map the board that another process made, and close ``fd``, which could write all of it.

        Raises OSError, and ValueError when ``fd`` is not a board.
        """
        try:
            board = cls(-1, map_without_descriptor(fd, size))
        finally:
            os.close(fd)
        if board._bytes[:8].cast("Q")[0] != layout.BOARD_MAGIC:
            raise ValueError("the descriptor is not a status board of this version")
        # One mapping, so that one view has the words of both ends of an edge.
        protect(board._memory, 0, size, writable=False)
        board._protected = True
        return board

    def allocate_edge(self, bound: int, *, journal: bool = False) -> tuple[int, int]:
        """Return area and ledger slots for a new edge (runner). Raises BoardFull.

        ``journal``: it is the queue of a link.
        """
        slots = layout.ledger_slots_for(bound)
        before = layout.consumer_size(slots, layout.journal_size(bound) if journal else 0)
        size = before + layout.producer_size(slots)
        start = self._allocate(size)
        self._edges[start + before] = start, size
        return start + before, slots

    def _allocate(self, size: int) -> int:
        if self._end + size <= self.size:
            start = self._end
            self._reserve(start, size)
            self._end += size
            return start
        # Areas are reused only when no fresh ones are left, the longest unused first: a producer
        # that still writes to a removed queue must not write to another edge's words.
        for index, (start, free_size) in enumerate(self._free):
            if free_size == size:
                del self._free[index]
                self._bytes[start : start + size] = bytes(size)
                return start
        raise BoardFull(
            f"the status board of {self.size:,} bytes has no room for another edge; make it larger"
        )

    def _reserve(self, start: int, size: int) -> None:
        assert isinstance(self._memory, mmap.mmap), "only the runner allocates"
        reserve(self.fd, self._memory, start, size)

    def free_edge(self, area: int) -> None:
        """Free the area of an edge that neither end uses any more (runner)."""
        self._free.append(self._edges.pop(area))

    def own_producer(self, spec: QueueSpec) -> None:
        """Let this process write the producer's words of an edge. Raises OSError."""
        self._own(spec.area, layout.producer_size(spec.ledger_slots))

    def own_consumer(self, spec: QueueSpec) -> None:
        """Let this process write the consumer's words of an edge. Raises OSError."""
        size = layout.consumer_size(spec.ledger_slots, spec.journal_size)
        self._own(spec.area - size, size)

    def _own(self, start: int, size: int) -> None:
        if self._protected:
            protect(self._memory, start, size, writable=True)

    def edge_words(self, area: int) -> memoryview:
        """Return an edge's words as a memoryview of format `Q`; indices: layout.py."""
        return self._part(area + layout.WORDS_AT, layout.EDGE_WORDS * 8).cast("Q")

    def notice(self, area: int) -> memoryview:
        """Return the text of the edge's last NODE_FAILED."""
        return self._part(area + layout.NOTICE, layout.NOTICE_SIZE)

    def ledger(self, area: int, slots: int) -> memoryview:
        """Return one byte a slot, the generation released last; written by the consumer."""
        return self._part(area + layout.WORDS_AT - slots, slots)

    def assigned(self, area: int, slots: int) -> memoryview:
        """Return one byte a slot, the generation assigned last; written by the producer."""
        return self._part(area + layout.ASSIGNED, slots)

    def journal(self, spec: QueueSpec) -> memoryview:
        """Return the journal of a link's queue; written by the link."""
        start = spec.area + layout.WORDS_AT - spec.ledger_slots - spec.journal_size
        return self._part(start, spec.journal_size)

    def _part(self, offset: int, size: int) -> memoryview:
        if offset < layout.PAGE or offset % 8 or offset + size > self.size:
            raise ValueError(f"no area at offset {offset} of a status board of {self.size} bytes")
        return self._bytes[offset : offset + size]

    def close(self) -> None:
        """Close the descriptor; the mapping is removed with its last user."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
        self.segments = {}
