"""Mark state that an exception of a signal handler left half changed; its later use is refused.

A signal handler runs between any two instructions of the main thread, so the exception it raises
may end a change halfway. While a call waits, nothing is half changed. To other processes it is the
same as SIGKILL at that instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import TypeVar

from dora_node_api.errors import DoraNodeError, NodeInterrupted

_REMEDY = (
    "an exception of a signal handler ended a call of this node halfway, so the node cannot be used"
    " any more. End the process with an error, and its restart policy starts it again. To prevent"
    " this, let the handler set a flag or close the node instead of raising"
)


T = TypeVar("T")


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
