"""Waits for a condition with a deadline; tests wait in no other way."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TypeVar

import anyio

T = TypeVar("T")

PATIENCE = 60.0
"""Default deadline in seconds, long enough for a busy machine; only failing tests reach it."""
_FIRST_PAUSE = 0.001
_MAX_PAUSE = 0.05
_LOOKS = 2.0
"""A pause is so many times as long as the last look, which may start a process."""
_LONGEST = 0.5
"""The longest pause of this kind."""


class StillWaiting(AssertionError):
    """The condition was not true before the deadline."""

    def __init__(self, what: str, timeout: float, last: object) -> None:
        self.what = what
        self.timeout = timeout
        self.last = last
        super().__init__(f"waited {timeout:g} s for {what}; the last look gave {last!r}")


def wait_until(
    condition: Callable[[], T],
    *,
    timeout: float = PATIENCE,
    what: str | Callable[[], str] = "a condition",
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    ``timeout`` is in seconds. ``what`` completes "waited 10 s for ..."; a function is called only
    when the wait fails. Raises StillWaiting at the deadline; exceptions of ``condition`` pass
    through.
    """
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        began = time.monotonic()
        result = condition()
        if result:
            return result
        now = time.monotonic()
        left = deadline - now
        if left <= 0:
            raise StillWaiting(what if isinstance(what, str) else what(), timeout, result)
        time.sleep(min(max(pause, min(_LOOKS * (now - began), _LONGEST)), left))
        pause = min(pause * 2, _MAX_PAUSE)


def let_last(seconds: float) -> None:
    """Let a fault last for some time; a result is awaited with ``wait_until``."""
    time.sleep(seconds)


async def wait_until_async(
    condition: Callable[[], T],
    *,
    timeout: float = PATIENCE,  # noqa: ASYNC109 - the deadline must name what was awaited
    what: str | Callable[[], str] = "a condition",
) -> T:
    """Like wait_until, inside an event loop (asyncio or trio)."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        result = condition()
        if result:
            return result
        left = deadline - time.monotonic()
        if left <= 0:
            raise StillWaiting(what if isinstance(what, str) else what(), timeout, result)
        await anyio.sleep(min(pause, left))
        pause = min(pause * 2, _MAX_PAUSE)


def is_in(thread: int | None, function: str) -> bool:
    """Return whether a thread of this process runs a call of a function, such as `Waiter.wait`."""
    frame = sys._current_frames().get(thread or 0)
    while frame is not None and frame.f_code.co_qualname != function:
        frame = frame.f_back
    return frame is not None
