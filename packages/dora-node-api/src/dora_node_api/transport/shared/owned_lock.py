"""A lock that its owner can recognize: a signal handler may run while its thread holds it."""

from __future__ import annotations

from _thread import RLock
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class OwnedLock(RLock):  # type: ignore[misc]  # not final at run time
    """Reentrant lock that reports whether this thread holds it.

    Reentrant only because such a lock records its owner. Callers check `owned` first where a second
    entry of the same thread would be wrong.
    """

    owned: Callable[[], bool] = RLock._is_owned  # type: ignore[attr-defined]

    def run_if_free(self, function: Callable[[], T]) -> T | None:
        """Call a function with the lock held; return None if another thread holds it."""
        try:
            return function() if self.acquire(blocking=False) else None
        finally:
            # First of all: a signal handler that raised before it would leave the lock held.
            try:  # noqa: SIM105
                self.release()
            except RuntimeError:
                pass  # another thread holds it


def interrupting() -> RuntimeError:
    """Return the error of a call in a signal handler."""
    return RuntimeError(
        "a signal handler (or finalizer) has interrupted a call of this node; there only `close()`"
        " works: set a flag in the handler, and look at it after the call"
    )
