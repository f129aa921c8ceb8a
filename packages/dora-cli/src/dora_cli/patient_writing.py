"""Writes to a stream whose reader may be slow or stuck, so that the writer never hangs in the end.

A piece is written when the stream has room for it, so a wait for room can be given up.
"""

from __future__ import annotations

import os
import select
import time
from typing import TextIO

PATIENCE = 3.0
"""Seconds without room after which a stream is given up, once the user wants an end."""

_PIECE = 4096
"""Bytes that a pipe takes at once when it reports room (PIPE_BUF)."""
_LOOK_SECONDS = 0.2
"""How often a wait looks whether the user has lost patience."""

_hurried: list[float] = []
"""When `hurry` was called first, if it was."""


def hurry() -> None:
    """From now on give up a stream that has no room for `PATIENCE` seconds."""
    if not _hurried:
        _hurried.append(time.monotonic())


def write(stream: TextIO, text: str) -> bool:
    """Write all of `text`, waiting for room; False if the stream was given up."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # no file, as in tests
        stream.write(text)
        stream.flush()
        return True
    stream.flush()
    data = memoryview(text.encode(stream.encoding or "utf-8", stream.errors or "backslashreplace"))
    while data:
        if not _wait_for_room(descriptor):
            return False
        try:
            data = data[os.write(descriptor, data[:_PIECE]) :]
        except BlockingIOError:  # another process has made it non-blocking, and was faster
            continue
    return True


def _wait_for_room(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    begun = time.monotonic()
    while not poll.poll(_LOOK_SECONDS * 1000):
        if _hurried and time.monotonic() - max(begun, _hurried[0]) > PATIENCE:
            return False
    return True
