"""Ids of requests: UUIDs of version 7."""

from __future__ import annotations

import os
import threading
import time

_last_uuid = (0, 0)
_uuid_lock = threading.Lock()
random_bytes = os.urandom
"""Replaced in tests that repeat the same ids."""


def uuid7() -> str:
    """Return a new UUID of version 7; within a process their texts sort by creation."""
    global _last_uuid
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(random_bytes(10), "big")
    counter = random >> 68 & 0x7FF
    with _uuid_lock:
        last, last_counter = _last_uuid
        if milliseconds <= last:
            milliseconds, counter = last, last_counter + 1
            if counter > 0xFFF:
                milliseconds, counter = last + 1, 0
        _last_uuid = (milliseconds, counter)
    number = milliseconds << 80 | 7 << 76 | counter << 64 | 2 << 62 | random & (1 << 62) - 1
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
