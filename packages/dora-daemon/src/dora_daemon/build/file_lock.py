"""Locks that exclude builds of other processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from dora_daemon.process_tree.runtime_dir import lock

POLL_SECONDS = 0.1
"""Seconds between attempts to lock."""


@asynccontextmanager
async def file_lock(path: Path, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold the lock of a file; ``on_wait`` is called if another process holds it."""
    descriptor = lock(path)
    if descriptor is None:
        on_wait()
    while descriptor is None:
        await anyio.sleep(POLL_SECONDS)
        descriptor = lock(path)
    try:
        yield
    finally:
        os.close(descriptor)
