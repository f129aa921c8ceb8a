"""The program and the shared libraries that this process has loaded."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import suppress

_PT_LOAD, _PT_DYNAMIC = 1, 2
_PF_W = 2
_DT_NULL, _DT_TEXTREL, _DT_FLAGS = 0, 22, 30
_DF_TEXTREL = 4


class _Segment(ctypes.Structure):
    """Elf64_Phdr: see elf(5)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("physical", ctypes.c_uint64),
        ("file_size", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("alignment", ctypes.c_uint64),
    )


class _Dynamic(ctypes.Structure):
    """Elf64_Dyn."""

    _fields_ = (("tag", ctypes.c_int64), ("value", ctypes.c_uint64))


class _Loaded(ctypes.Structure):
    """Beginning of struct dl_phdr_info: see dl_iterate_phdr(3)."""

    _fields_ = (
        ("base", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("segments", ctypes.POINTER(_Segment)),
        ("count", ctypes.c_uint16),
        ("loaded_ever", ctypes.c_ulonglong),
    )


_Visit = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Loaded), ctypes.c_size_t, ctypes.c_void_p)


_LIBRARY = ctypes.PyDLL(None)
"""C library. Calls keep the GIL: while one holds the lock of the loader, a thread that has the GIL
may wait for that lock."""


def count_loaded() -> int | None:
    """Return how many libraries this process has loaded so far, None where it is unknown."""
    return next((loaded.loaded_ever for loaded in _all_loaded()), None)


def release_pages() -> None:
    """Unmap the pages that the program and its libraries cannot write; use maps them again.

    They are pages of files: other processes share them, and they stay in the page cache.
    """
    for loaded in _all_loaded():
        for begin, size in _unwritten(loaded):
            _LIBRARY.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def _all_loaded() -> list[_Loaded]:
    """Return what the loader has loaded; nothing on a machine of 32 bits."""
    found: list[_Loaded] = []

    def visit(loaded: ctypes._Pointer[_Loaded], _size: int, _data: object) -> int:
        found.append(_Loaded.from_buffer_copy(loaded.contents))
        return 0

    if sys.maxsize > 1 << 32:
        with suppress(
            MemoryError
        ):  # the system forbids memory that is writable and executable, for callbacks
            _LIBRARY.dl_iterate_phdr(_Visit(visit), None)
    return found


def _unwritten(loaded: _Loaded) -> Iterator[tuple[int, int]]:
    """Yield begin and size of the segments of a library that equal those of its file."""
    segments = loaded.segments[: loaded.count]
    if any(_is_relocated(loaded.base + s.address) for s in segments if s.type == _PT_DYNAMIC):
        return
    for segment in segments:
        if segment.type == _PT_LOAD and not segment.flags & _PF_W:
            begin = loaded.base + segment.address
            before = begin % mmap.PAGESIZE
            yield begin - before, segment.size + before


def _is_relocated(dynamic: int) -> bool:
    """Return whether the loader has written into segments that cannot be written now."""
    entry = _Dynamic.from_address(dynamic)
    while entry.tag != _DT_NULL:
        if entry.tag == _DT_TEXTREL or (entry.tag == _DT_FLAGS and entry.value & _DF_TEXTREL):
            return True
        dynamic += ctypes.sizeof(_Dynamic)
        entry = _Dynamic.from_address(dynamic)
    return False
