"""A producer's segments: blocks by size class, kept warm, growing to a cap in bytes."""

from __future__ import annotations

from collections.abc import Callable


def default_pool_cap() -> int:
    """A quarter of the memory that this process may use (cgroup aware), at least 256 MiB."""
    raise NotImplementedError


class Block:
    """Where one payload lies: `segment`, `offset` and `size` (bytes), `view` (writable)."""


class Pool:
    """Shared memory for the payloads of one producer. Not thread-safe: its Sender locks."""

    def __init__(
        self, cap_bytes: int, register_segment: Callable[[int, int, int], None] | None = None
    ) -> None:
        """``register_segment(number, fd, size)`` is called before a segment's first use with a
        read-only descriptor, which stays the pool's: duplicate or send it within the call."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
