"""The program and the shared libraries that this process has loaded, as /proc shows them."""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress
from io import FileIO

_LIBRARY = ctypes.CDLL(None)


def loaded_libraries() -> frozenset[bytes] | None:
    """Return the files with code of this process, None without /proc.

    A library that was unloaded again is absent: its destructors have run.
    """
    # Not `open`: the built-in functions of Python are gone when a node is torn down.
    with suppress(OSError), FileIO("/proc/self/maps") as file:
        lines = file.readall().splitlines()
        return frozenset(
            one[one.index(b"/") :] for one in lines if b" r-xp " in one and b"/" in one
        )
    return None


def release_pages() -> None:
    """Unmap the pages of files that this process cannot write; use maps them again.

    Other processes share them, and they stay in the page cache. Mappings with pages of their own
    are left as they are: the loader has written to them.
    """
    with suppress(OSError), open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        place, access, inode = "", "", "0"
        for line in file:
            words = line.split()
            if not words[0].endswith(":"):
                place, access, _, _, inode, *_ = words
            elif words[:2] == ["Anonymous:", "0"] and "w" not in access and inode != "0":
                begin, end = (int(address, 16) for address in place.split("-"))
                _LIBRARY.madvise(
                    ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED
                )
