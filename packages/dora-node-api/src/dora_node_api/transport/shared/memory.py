"""Shared memory: create, seal, reserve, map. Independent of its contents."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys

_MADV_POPULATE_WRITE = 23
"""Advice of madvise(2) that the module `mmap` lacks."""


def create_memory(name: str, size: int) -> int:
    """Return a descriptor of ``size`` bytes of shared memory without a name in a file system.

    No process can shrink it, so a mapping of it never raises SIGBUS for its size. No page is used
    yet. Raises OSError.
    """
    fd = os.memfd_create(f"dora-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_only_descriptor(fd: int) -> int:
    """Return a descriptor of the same memory that cannot write; without /proc a duplicate.

    Raises OSError.
    """
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.dup(fd)


def map_memory(fd: int, size: int, *, writable: bool) -> mmap.mmap:
    """Map ``size`` bytes of ``fd``. Raises OSError, and ValueError when it is smaller."""
    if os.fstat(fd).st_size < size:
        raise ValueError(f"shared memory of {os.fstat(fd).st_size} bytes, expected {size}")
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=access, trackfd=False)
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=access)


def map_without_descriptor(fd: int, size: int) -> memoryview:
    """Map ``size`` writable bytes of ``fd``, which may be closed then; before 3.13 mmap copies it.

    Unmapped with the last view. Raises OSError, and ValueError when the memory is smaller.
    """
    import ctypes  # imported here: it takes milliseconds
    import weakref

    if os.fstat(fd).st_size < size:
        raise ValueError(f"shared memory of {os.fstat(fd).st_size} bytes, expected {size}")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    length, access = ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE
    address = libc.mmap(None, length, access, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    if address is None or address == ctypes.c_void_p(-1).value:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot map shared memory: {os.strerror(number)}")
    memory = (ctypes.c_char * size).from_address(address)
    weakref.finalize(memory, libc.munmap, ctypes.c_void_p(address), length).atexit = False
    return memoryview(memory).cast("B")


def protect(memory: mmap.mmap | memoryview, offset: int, size: int, *, writable: bool) -> None:
    """Change whether this process may write to whole pages of a writable mapping.

    Writing to them otherwise ends the process with SIGSEGV. Raises OSError.
    """
    import ctypes  # imported here: it takes milliseconds

    libc = ctypes.CDLL(None, use_errno=True)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + offset
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), access):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot protect shared memory: {os.strerror(number)}")


def reserve(fd: int, memory: mmap.mmap, offset: int, size: int) -> None:
    """Allocate the pages of a range, so that writing to it cannot fail.

    Raises MemoryError, and OSError for a range that is not in the memory.
    """
    try:
        os.posix_fallocate(fd, offset, size)
    except OSError as error:
        if error.errno in (errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text = f"cannot reserve {size:,} bytes of shared memory: {error.strerror}"
            raise MemoryError(text) from error
        if error.errno != errno.EOPNOTSUPP:
            raise
    if size >= 65536:
        # Only avoids faults page by page; kernels before 5.14 do not support it.
        with contextlib.suppress(OSError):
            memory.madvise(_MADV_POPULATE_WRITE, offset, size)


def give_back(memory: mmap.mmap, offset: int, size: int) -> bool:
    """Punch a hole: the pages go to the system, the addresses stay. False if that fails."""
    try:
        memory.madvise(mmap.MADV_REMOVE, offset, size)
    except OSError:
        return False
    return True
