"""Blocks outside the sender's lock: who owns one, and one that is filled in place."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from typing import Any

from dora_node_api.transport.producer.pool import Block
from dora_node_api.transport.shared.errors import SampleError


class HeapBlock(Block):
    """Memory of this process alone, for a sample that is copied when it is sent."""

    __slots__ = ()

    def __init__(self, nbytes: int) -> None:
        self.view = memoryview(bytearray(nbytes))


class Hold:
    """Owns a block outside the lock; dropped, it leaves the block where its sender finds it."""

    __slots__ = ("block", "returned")

    def __init__(self, returned: deque[Block]) -> None:
        self.block: Block | None = None
        self.returned = returned

    def __del__(self) -> None:
        try:
            block = self.block
        except AttributeError:
            return  # an exception from a signal handler ended __init__
        if block is not None:
            self.returned.append(block)


class Sample:
    """A block to be filled in place and then sent (b.4). Gives its memory back when dropped."""

    __slots__ = ("_buffer", "_exporter", "_hold", "data_offset", "nbytes", "total")

    def __init__(self, hold: Hold, data_offset: int, nbytes: int) -> None:
        self._hold: Hold | None = hold
        self._buffer: memoryview | None = None
        # All views are views of this object, so that its references tell whether any is left:
        # a memoryview does not know of those that were made from it.
        self._exporter: Any = None
        self.data_offset = data_offset
        self.nbytes = nbytes
        self.total = data_offset + nbytes

    @property
    def block(self) -> Block:
        """The block, while the sample is neither sent nor discarded. Raises SampleError."""
        if self._hold is None or self._hold.block is None:
            raise SampleError("this sample has already been sent or discarded")
        return self._hold.block

    @property
    def usable(self) -> bool:
        return self._hold is not None

    def _view(self) -> memoryview:
        if self._exporter is None:
            import pyarrow

            self._exporter = pyarrow.py_buffer(self.block.view[self.data_offset : self.total])
        return memoryview(self._exporter).cast("B")

    def as_buffer(self) -> memoryview:
        """The same writable buffer each time. Raises BufferError after send or discard."""
        if self._hold is None:
            raise BufferError("this sample has already been sent or discarded")
        if self._buffer is None:
            self._buffer = self._view()
        return self._buffer

    def as_memoryview(self) -> memoryview:
        """A new writable memoryview each time. Raises SampleError after send or discard."""
        if self._hold is None:
            raise SampleError("this sample has already been sent or discarded")
        return self._view()

    def close_views(self) -> None:
        """Make sure that nobody can write any more; raises SampleError when somebody could.

        What `as_buffer` returned is released, which does no harm to arrays made from it.
        """
        if not self._close_views():
            raise SampleError(
                "buffer view(s) still open: let go of arrays and memoryviews of the sample "
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
        # One reference is ours, the other the argument's.
        return self._exporter is None or sys.getrefcount(self._exporter) <= 2

    def take_hold(self) -> Hold:
        """The block, to be sent; the sample is of no more use. Raises SampleError."""
        hold = self._hold
        if hold is None:
            raise SampleError("this sample has already been sent or discarded")
        self._hold = None
        return hold

    def discard(self) -> None:
        """Give the memory back unsent. While views of it are open, nobody else uses the memory."""
        hold = self._hold
        if hold is not None and not self._close_views():
            hold.block = None
        self._hold = None

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.discard()


def heap_sample(nbytes: int) -> Sample:
    """A sample for a signal handler, which interrupted what allocates blocks."""
    hold = Hold(deque())
    hold.block = HeapBlock(nbytes)
    return Sample(hold, 0, nbytes)
