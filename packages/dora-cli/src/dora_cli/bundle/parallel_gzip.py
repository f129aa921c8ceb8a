"""Gzip compression on all cores: a file object that writes one gzip member for each block."""

from __future__ import annotations

import os
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Final

BLOCK: Final = 4 << 20
"""Bytes of a member before compression; the same input gives the same output on any machine."""
_GZIP: Final = 16 + zlib.MAX_WBITS


class ParallelGzip:
    """A write-only context manager; every gzip reads the members as one stream."""

    def __init__(self, target: BinaryIO, level: int) -> None:
        self._target = target
        self._level = level
        self._block = bytearray()
        self._waiting: deque[Future[bytes]] = deque()
        self._cores = os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._cores)

    def __enter__(self) -> ParallelGzip:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._submit()
            self._write(max_waiting=0)
        self._pool.shutdown(cancel_futures=True)

    def write(self, data: bytes) -> int:
        self._block += data
        if len(self._block) >= BLOCK:
            self._submit()
            self._write(max_waiting=2 * self._cores)
        return len(data)

    def _submit(self) -> None:
        block, self._block = bytes(self._block), bytearray()
        self._waiting.append(self._pool.submit(zlib.compress, block, self._level, _GZIP))

    def _write(self, max_waiting: int) -> None:
        while len(self._waiting) > max_waiting:
            self._target.write(self._waiting.popleft().result())
