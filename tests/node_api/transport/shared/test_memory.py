"""Shared memory: reservation, read-only descriptors, limits."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from dora_node_api.transport.shared.memory import (
    create_memory,
    map_memory,
    read_only_descriptor,
    reserve,
)

SIZE = 1 << 16


@pytest.fixture
def segment() -> Iterator[int]:
    descriptor = create_memory("test", SIZE)
    yield descriptor
    os.close(descriptor)


def test_read_only_descriptor_cannot_write(segment: int) -> None:
    shown = read_only_descriptor(segment)
    try:
        with pytest.raises(PermissionError):
            map_memory(shown, SIZE, writable=True)
        map_memory(shown, SIZE, writable=False).close()
    finally:
        os.close(shown)


def test_only_without_proc_a_descriptor_may_write(
    segment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_with(number: int) -> None:
        def fail(path: str, flags: int) -> int:
            raise OSError(number, os.strerror(number), path)

        monkeypatch.setattr(os, "open", fail)

    fail_with(errno.ENOENT)
    os.close(read_only_descriptor(segment))
    fail_with(errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        read_only_descriptor(segment)


def test_memory_that_cannot_be_reserved(segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped = map_memory(segment, SIZE, writable=True)

    def fail(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with mapped:
        reserve(segment, mapped, 0, SIZE)
        with pytest.raises(OSError, match="Invalid argument"):
            reserve(segment, mapped, -1, SIZE)
        monkeypatch.setattr(os, "posix_fallocate", fail)
        with pytest.raises(MemoryError, match="cannot reserve 65,536 bytes of shared memory: No"):
            reserve(segment, mapped, 0, SIZE)
