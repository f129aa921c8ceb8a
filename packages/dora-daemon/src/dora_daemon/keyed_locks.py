"""Locks by key, each kept only while it is used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import anyio

K = TypeVar("K", bound=Hashable)


class KeyedLocks(Generic[K]):
    def __init__(self) -> None:
        self._locks: dict[K, anyio.Lock] = {}

    @asynccontextmanager
    async def hold(self, key: K) -> AsyncIterator[None]:
        """Hold the lock of a key for the block."""
        lock = self._locks.setdefault(key, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            found = lock.statistics()
            unused = not found.locked and not found.tasks_waiting
            # A cancelled task may end after its lock was dropped and the key has another one.
            if unused and self._locks.get(key) is lock:
                del self._locks[key]
