"""Blocks outside of the sender's lock: their owner, and samples that are filled in place."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

from dora_node_api.transport.producer.pool import PoolBlock
from dora_node_api.transport.shared.errors import SampleError


class HeapBlock(PoolBlock):
    """Private memory, for a sample that is copied when it is sent."""

    __slots__ = ()

    def __init__(self, nbytes: int) -> None:
        self.view = memoryview(bytearray(nbytes))


class Hold:
    """Owns a block outside of the lock; when dropped, it returns the block to its sender."""

    __slots__ = ("block", "returned")

    def __init__(self, returned: deque[PoolBlock]) -> None:
        self.block: PoolBlock | None = None
        self.returned = returned

    def __del__(self) -> None:
        block = getattr(self, "block", None)  # unset if a signal handler raised in __init__
        if block is not None:
            self.returned.append(block)


class SampleMemory:
    """A block to be filled in place and then sent. Gives its memory back when dropped."""

    __slots__ = ("_buffer", "_exporter", "_hold", "data_offset", "nbytes", "total")

    def __init__(self, hold: Hold, data_offset: int, nbytes: int) -> None:
        self._hold: Hold | None = hold
        self._buffer: memoryview | None = None
        # All views are views of this object, so its reference count shows whether one is left.
        self._exporter: Any = None
        self.data_offset = data_offset
        self.nbytes = nbytes
        self.total = data_offset + nbytes

    @property
    def block(self) -> PoolBlock:
        """The block of a sample that is neither sent nor discarded. Raises SampleError."""
        if self._hold is None or self._hold.block is None:
            raise SampleError("this sample has already been sent or discarded")
        return self._hold.block

    def _view(self) -> memoryview:
        if self._exporter is None:
            import pyarrow

            self._exporter = pyarrow.py_buffer(self.block.view[self.data_offset : self.total])
        return memoryview(self._exporter).cast("B")

    def as_buffer(self) -> memoryview:
        """Return the same writable buffer each time. Raises BufferError after send or discard."""
        if self._hold is None:
            raise BufferError("this sample has already been sent or discarded")
        if self._buffer is None:
            self._buffer = self._view()
        return self._buffer

    def as_memoryview(self) -> memoryview:
        """Return a new writable memoryview. Raises SampleError after send or discard."""
        if self._hold is None:
            raise SampleError("this sample has already been sent or discarded")
        return self._view()

    def close_views(self) -> None:
        """Release the buffer of `as_buffer`. Raises SampleError if views are still open."""
        if not self._close_views():
            raise SampleError(
                "buffer view(s) still open: drop arrays and memoryviews of the sample "
                "(`del array`, `view.release()`) before it is sent"
            )

    def _close_views(self) -> bool:
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            try:
                buffer.release()
            except BufferError:
                self._buffer = buffer
                return False
        # One reference is the attribute's, the other the argument's.
        return self._exporter is None or sys.getrefcount(self._exporter) <= 2

    def take_hold(self) -> Hold:
        """Return the block's hold; the sample is unusable after this. Raises SampleError."""
        hold = self._hold
        if hold is None:
            raise SampleError("this sample has already been sent or discarded")
        self._hold = None
        return hold

    def discard(self) -> None:
        """Give the memory back unsent. Memory with open views is not used again."""
        hold = self._hold
        if hold is not None and not self._close_views():
            hold.block = None
        self._hold = None

    def __del__(self) -> None:
        if getattr(self, "_hold", None) is not None:
            self.discard()


def heap_sample(nbytes: int) -> SampleMemory:
    """Return a sample in private memory."""
    hold = Hold(deque())
    hold.block = HeapBlock(nbytes)
    return SampleMemory(hold, 0, nbytes)
