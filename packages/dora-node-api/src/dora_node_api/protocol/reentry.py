"""Deferred calls of signal handlers, which run inside a call of the same thread.

A signal handler (or a finalizer) interrupts its thread at any point, also while the thread holds
the sender's lock. What it sends then waits here until the interrupted call is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TypeVar

T = TypeVar("T")


class Reentry:
    """The threads that are inside a call, and the calls deferred by their signal handlers.

    An exception of a signal handler leaves no thread inside: `discard` is the first call of each
    `finally`.
    """

    def __init__(self, on_error: Callable[[Exception], None], errors: tuple[type[Exception], ...]):
        self.inside: set[int] = set()
        self.waiting: deque[tuple[int, Callable[[], object]]] = deque()
        self._on_error = on_error
        self._errors = errors

    def busy(self) -> bool:
        """Whether this thread is inside a call, or has deferred calls."""
        me = get_ident()
        return me in self.inside or (bool(self.waiting) and self._owns_any(me))

    def call(self, function: Callable[[], T]) -> T:
        """Call a function; calls that a signal handler submits meanwhile follow it."""
        me = get_ident()
        if me in self.inside:
            return function()
        try:
            self.inside.add(me)
            return function()
        finally:
            self.inside.discard(me)
            if self.waiting:
                self.run_waiting()

    def submit(self, function: Callable[[], object]) -> None:
        """Call a function now, or after the call that this thread is inside.

        Errors of a deferred call go to `on_error`.
        """
        if not self.busy():
            self.call(function)
            return
        me = get_ident()
        self.waiting.append((me, function))
        if me not in self.inside:
            self.run_waiting()

    def run_waiting(self) -> None:
        """Make the deferred calls of this thread, in order."""
        me = get_ident()
        while self._owns_any(me):
            try:
                self.inside.add(me)
                while (function := self._take(me)) is not None:
                    try:
                        function()
                    except self._errors as error:
                        self._on_error(error)
            finally:
                self.inside.discard(me)

    def _owns_any(self, me: int) -> bool:
        return any(owner == me for owner, _ in list(self.waiting))

    def _take(self, me: int) -> Callable[[], object] | None:
        for entry in list(self.waiting):
            if entry[0] == me:
                self.waiting.remove(entry)
                return entry[1]
        return None
