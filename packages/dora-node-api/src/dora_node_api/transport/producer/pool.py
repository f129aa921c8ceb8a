"""A producer's segments: blocks by size class, kept warm, growing to a cap in bytes.

A segment is an address range in one shared memory; its pages are reserved block by block, so that
a large segment costs nothing before it is used and running out of memory is an error here, never a
SIGBUS during a copy. The block used last is used again first, while it is in the processor's cache.
Blocks that were not needed for a while, or whose memory another size needs, return their pages to
the system and keep their addresses.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable

from dora_node_api.errors import SetUpError
from dora_node_api.transport.shared.layout import PAGE
from dora_node_api.transport.shared.limits import usable_memory
from dora_node_api.transport.shared.memory import (
    create_memory,
    give_back,
    map_memory,
    read_only_descriptor,
    reserve,
)

_MIN_BLOCK = 256
"""Bytes of the smallest block."""
_RUN = 4 * PAGE  # bytes that are cut from a segment at a time for small blocks
FIRST_SEGMENT = 64 << 20
"""Bytes of the first segment, for which a runner prepares the memory."""
_SEGMENT_SIZES = (FIRST_SEGMENT, 256 << 20, 1 << 30)
MIN_DEFAULT_CAP = 256 << 20
"""Smallest default limit of a producer's shared memory, in bytes."""
POOL_SIZE_VARIABLE = "DORA_NODE_SHM_POOL_SIZE"
_LIMITS = {
    errno.ENOMEM: "address space for {size:,} bytes more (`ulimit -v`)",
    errno.EFBIG: "a file of {size:,} bytes, which shared memory is (`ulimit -f`)",
    errno.EMFILE: "more open files (`ulimit -n`)",
}


def default_pool_cap() -> int:
    """Return a quarter of the memory this process may use (cgroup aware), at least 256 MiB."""
    return max(usable_memory() // 4, MIN_DEFAULT_CAP)


def pool_size(configured: int | None) -> int:
    """Return the bytes of shared memory that a node may use.

    Raises SetUpError for an invalid environment variable.
    """
    if configured is not None:
        return configured
    given = os.environ.get(POOL_SIZE_VARIABLE, "").strip()
    if not given:
        return default_pool_cap()
    size = parse_pool_size(given)
    if size is None:
        raise SetUpError(
            f"{POOL_SIZE_VARIABLE}={given!r} is not a valid size; give bytes, or 256MB for example"
        )
    return size


def parse_pool_size(given: str) -> int | None:
    """Return the bytes of a size such as `256MB` (powers of 1024); None if it is invalid."""
    number = given.strip().upper().removesuffix("B").removesuffix("I")
    unit = 1
    if number[-1:] in ("K", "M", "G"):
        unit = 1024 ** ("KMG".index(number[-1]) + 1)
        number = number[:-1]
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        return None
    return size if size > 0 else None


def size_class(nbytes: int) -> int:
    """Return the block size for ``nbytes``: powers of two to a page, then 8 steps a doubling."""
    if nbytes <= _MIN_BLOCK:
        return _MIN_BLOCK
    bits = (nbytes - 1).bit_length()
    if bits <= 12:
        return 1 << bits
    step = max(1 << bits - 4, PAGE)
    return -(-nbytes // step) * step


def _not_granted(error: OSError, size: int) -> MemoryError:
    """Return the error of a segment of ``size`` bytes that cannot be made or shown to readers."""
    missing = _LIMITS.get(error.errno or 0, "shared memory: {error}")
    return MemoryError(
        "the system does not grant this process " + missing.format(size=size, error=error)
    )


class Segment:
    """One shared memory, cut into blocks from the front."""

    __slots__ = ("fd", "memory", "number", "size", "used", "view")

    def __init__(self, number: int, size: int, fd: int = -1) -> None:
        """Take ownership of ``fd`` if it is given, else make the memory."""
        self.fd = fd
        self.number = number
        self.size = size
        self.used = 0
        try:
            if fd < 0:
                self.fd = create_memory(f"segment-{number}", size)
            self.memory: mmap.mmap = map_memory(self.fd, size, writable=True)
        except OSError as error:
            raise _not_granted(error, size) from error
        self.view = memoryview(self.memory)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()


class PoolBlock:
    """Memory of one payload.

    `refs` counts the records that point at it; `pinned` is True while a sample or a long copy owns
    it. With neither it is free.
    """

    __slots__ = ("home", "offset", "pinned", "refs", "segment", "size", "stamp", "view")

    def __init__(self, home: SizeClass, segment: Segment, offset: int, size: int) -> None:
        self.home = home
        self.segment = segment
        self.offset = offset
        self.size = size
        self.view = segment.view[offset : offset + size]
        self.refs = 0
        self.pinned = False
        self.stamp = 0


class SizeClass:
    """The free blocks of one size."""

    __slots__ = ("cold", "free", "idle", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.free: list[PoolBlock] = []
        self.cold: list[PoolBlock] = []  # without pages
        self.idle = 0  # how many of `free` were not needed since the last trim


class Pool:
    """Shared memory for the payloads of one producer. Not thread-safe: its Sender locks."""

    def __init__(
        self,
        cap_bytes: int,
        register_segment: Callable[[int, int, int], None] | None = None,
        first: tuple[int, int] | None = None,
    ) -> None:
        """``register_segment(number, fd, size)`` is called before a segment's first use with a
        read-only descriptor, which the pool closes: duplicate or send it within the call.

        ``first``: descriptor and size of segment 0, which is registered already."""
        self.cap_bytes = cap_bytes
        self.reserved_bytes = 0
        self.segments: list[Segment] = []
        self.classes: dict[int, SizeClass] = {}
        # By payload size, a cache: messages of an output tend to have one size.
        self._homes: dict[int, SizeClass] = {}
        self.stamp = int.from_bytes(os.urandom(4), "little") << 32
        self._register = register_segment
        self._next_number = 0
        if first is not None:
            self._next_number = 1
            with contextlib.suppress(MemoryError):  # reported when a message needs memory
                self.segments.append(Segment(0, first[1], first[0]))

    def take(self, nbytes: int, *, grow: bool = True) -> PoolBlock | None:
        """Return a block of at least ``nbytes``; None when that would exceed the cap.

        Without ``grow``, only a free block that was used before. Raises MemoryError when the system
        has no memory or no descriptor.
        """
        home = self._homes.get(nbytes)
        if home is None:
            home = self._home(nbytes)
        free = home.free
        if not free and not (grow and self._grow(home)):
            return None
        block = free.pop()
        if len(free) < home.idle:
            home.idle = len(free)
        self.stamp = block.stamp = self.stamp + 1
        return block

    def _home(self, nbytes: int) -> SizeClass:
        size = size_class(nbytes)
        home = self.classes.get(size)
        if home is None:
            home = self.classes[size] = SizeClass(size)
        if len(self._homes) > 1000:
            self._homes.clear()
        self._homes[nbytes] = home
        return home

    def give(self, block: PoolBlock) -> None:
        """Take back a block that has no refs and is not pinned."""
        block.home.free.append(block)

    def _grow(self, home: SizeClass) -> bool:
        """Add a block with pages to the class, if the cap allows."""
        size = home.size
        if self.reserved_bytes + size > self.cap_bytes and not self._make_room(size):
            return False
        if not home.cold:
            run = max(size, _RUN)
            segment = self._segment_with(run)
            start = segment.used
            new = [
                PoolBlock(home, segment, start + at, size) for at in range(0, run - size + 1, size)
            ]
            segment.used = start + run
            home.cold.extend(reversed(new))
        # Small blocks keep their pages, so a page is reserved with its first block.
        block = home.cold[-1]
        room = (self.cap_bytes - self.reserved_bytes) // size
        count = min(len(home.cold), max(1, PAGE // size), room)
        reserve(block.segment.fd, block.segment.memory, block.offset, count * size)
        self.reserved_bytes += count * size
        home.free.extend(home.cold[-count:])
        del home.cold[-count:]
        return True

    def _segment_with(self, nbytes: int) -> Segment:
        if self.segments:
            segment = self.segments[-1]
            if segment.size - segment.used >= nbytes:
                return segment
        usual = _SEGMENT_SIZES[min(len(self.segments), len(_SEGMENT_SIZES) - 1)]
        number = self._next_number
        self._next_number += 1  # also if the segment cannot be made: no number is used twice
        segment = Segment(number, max(usual, -(-nbytes // PAGE) * PAGE))
        if self._register is not None:
            try:
                shown = read_only_descriptor(segment.fd)
            except OSError as error:
                raise _not_granted(error, segment.size) from error
            try:
                self._register(number, shown, segment.size)
            finally:
                os.close(shown)
        self.segments.append(segment)
        return segment

    def _make_room(self, nbytes: int) -> bool:
        """Give back pages of free blocks of any size, the largest first."""
        for size in sorted(self.classes, reverse=True):
            home = self.classes[size]
            while size >= PAGE and home.free:
                if self.reserved_bytes + nbytes <= self.cap_bytes:
                    return True
                if not self._cool(home):
                    break
        return self.reserved_bytes + nbytes <= self.cap_bytes

    def _cool(self, home: SizeClass) -> bool:
        """Give back the pages of the block that has been free for longest."""
        block = home.free[0]
        if not give_back(block.segment.memory, block.offset, block.size):
            return False
        self.reserved_bytes -= block.size
        home.cold.append(block)
        del home.free[0]
        return True

    def trim(self) -> None:
        """Give back the pages of half the blocks that were not needed since the last call.

        A size in use keeps one spare block: reserving a large block again takes milliseconds.
        """
        for home in self.classes.values():
            if home.size >= PAGE:
                unused = home.idle == len(home.free)
                for _ in range(min((home.idle + unused) // 2, len(home.free))):
                    if not self._cool(home):
                        break
            home.idle = len(home.free)

    def release_free(self) -> None:
        """Give back the pages of every free block."""
        for home in self.classes.values():
            while home.size >= PAGE and home.free and self._cool(home):
                pass
            home.idle = len(home.free)

    def close(self) -> None:
        """Close the segments' descriptors; mappings go when the last view of them does."""
        for segment in self.segments:
            with contextlib.suppress(OSError):
                segment.close()
        self.segments = []
        self.classes = {}
        self._homes = {}
