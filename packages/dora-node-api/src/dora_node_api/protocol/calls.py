"""The threads that are inside a call of a node, which signal handlers must not enter again.

A signal handler (or a finalizer) interrupts its thread at any point, also while the thread holds
the sender's lock. There it may close the node, which happens after the interrupted call; any other
call raises.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TypeVar

from dora_node_api.transport.shared.owned_lock import interrupting

T = TypeVar("T")


class Calls:
    """The calls of one node. `discard` is the first call of each `finally`."""

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
