"""Writes to a stream whose reader may be slow or stuck, without blocking forever.

Each piece is written when the stream is ready, so that waiting can be given up.
"""

from __future__ import annotations

import os
import select
import time
from typing import TextIO

PATIENCE = 3.0
"""Seconds after which a blocked stream is given up, once `limit_waits` was called."""

_PIECE = 4096
"""Bytes that a writable pipe accepts at once (PIPE_BUF)."""
_POLL_SECONDS = 0.2
"""Interval in which a wait checks for `limit_waits`."""

_limited_since: list[float] = []
"""Time of the first call of `limit_waits`; empty before it."""


def limit_waits() -> None:
    """From now on, give up a stream that is blocked for `PATIENCE` seconds."""
    if not _limited_since:
        _limited_since.append(time.monotonic())


def write(stream: TextIO, text: str) -> bool:
    """Write all of `text`, waiting if necessary; return False if the stream was given up."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a file, as in tests
        stream.write(text)
        stream.flush()
        return True
    stream.flush()
    data = memoryview(text.encode(stream.encoding or "utf-8", stream.errors or "backslashreplace"))
    while data:
        if not _wait_until_writable(descriptor):
            return False
        try:
            data = data[os.write(descriptor, data[:_PIECE]) :]
        except BlockingIOError:  # non-blocking, and another process has filled it
            continue
    return True


def _wait_until_writable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    begun = time.monotonic()
    while not poll.poll(_POLL_SECONDS * 1000):
        if _limited_since and time.monotonic() - max(begun, _limited_since[0]) > PATIENCE:
            return False
    return True
