"""Holds back the output of nodes while too many lines wait to be shown; lives on the event loop."""

from __future__ import annotations

from collections.abc import Callable


class Gate:
    """While it is shut, readers leave what their nodes print in the pipes."""

    def __init__(self) -> None:
        self.is_open = True
        self._waiting: list[Callable[[], None]] = []

    def shut(self) -> None:
        self.is_open = False

    def open(self) -> None:
        """Let every waiting reader proceed."""
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for proceed in waiting:
            proceed()

    def when_open(self, proceed: Callable[[], None]) -> None:
        """Call ``proceed`` once, when the gate is opened next."""
        self._waiting.append(proceed)
