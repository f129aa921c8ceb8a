"""Protection of state against signal handlers and finalizers, which interrupt a call at any point.

In a signal handler only `close()` of a node works, and takes effect after the interrupted call
(`Calls`); any other call raises. An exception that a handler raises may end a change halfway: then
later uses are refused (`Integrity`). For other processes this equals SIGKILL at that instruction.
No change is incomplete while a call waits.
"""

from __future__ import annotations

from _thread import RLock
from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import TypeVar

from dora_node_api.errors import DoraNodeError, NodeInterrupted

T = TypeVar("T")

_REMEDY = (
    "an exception of a signal handler ended a call of this node halfway, so the node cannot be used"
    " any more. End the process with an error, and its restart policy starts it again. To prevent"
    " this, let the handler set a flag or close the node instead of raising"
)


def interrupting() -> RuntimeError:
    """Return the error of a call in a signal handler."""
    return RuntimeError(
        "a signal handler (or finalizer) has interrupted a call of this node; there only `close()`"
        " works: set a flag in the handler, and look at it after the call"
    )


class Calls:
    """The threads inside a call of a node. `discard` is the first call of each `finally`."""

    def __init__(self) -> None:
        self.inside: set[int] = set()
        self.closing: list[Callable[[], None]] = []
        """Close the node after the call that a signal handler interrupted."""

    def busy(self) -> bool:
        """Whether this thread is inside a call."""
        return get_ident() in self.inside

    def run(self, function: Callable[[], T]) -> T:
        """Make a call. Raises RuntimeError if it interrupts another one of its thread."""
        me = get_ident()
        if me in self.inside:
            raise interrupting()
        try:
            self.inside.add(me)
            return function()
        finally:
            self.inside.discard(me)
            if self.closing:
                self.close()

    def close(self) -> None:
        """Close the node as signal handlers have requested."""
        while self.closing:
            self.closing.pop()()


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
            # First statement: an exception of a signal handler before it would leave the lock held.
            try:  # noqa: SIM105
                self.release()
            except RuntimeError:
                pass  # another thread holds it


class Integrity:
    """Guards changes that must be complete: `with integrity:` around each of them.

    An exception that leaves the block makes every later use raise NodeInterrupted. Errors of this
    package do not: they are raised where the state is consistent.
    """

    __slots__ = ("_waiter", "broken")

    def __init__(self) -> None:
        self.broken = False
        self._waiter = 0
        """Thread whose wait was ended by an exception that has not left the block yet."""

    def check(self) -> None:
        """Raise NodeInterrupted if a change was left incomplete."""
        if self.broken:
            raise NodeInterrupted(_REMEDY)

    def wait(self, function: Callable[[], T]) -> T:
        """Call a function that waits inside of a block; an exception in it breaks nothing."""
        try:
            return function()
        except BaseException:
            self._waiter = get_ident()
            raise

    def __enter__(self) -> None:
        self.check()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.left_by(kind)

    def left_by(self, kind: type[BaseException]) -> None:
        """Note that an exception left a change, where a `with` block would cost too much."""
        if self._waiter == get_ident():
            self._waiter = 0
        elif not issubclass(kind, DoraNodeError):
            self.broken = True
