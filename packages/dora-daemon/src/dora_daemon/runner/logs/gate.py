"""Holds back the output of nodes while too many log lines are queued."""

from __future__ import annotations

from collections.abc import Callable


class Gate:
    """While it is closed, the output of nodes stays in their pipes."""

    def __init__(self) -> None:
        self.is_open = True
        self._waiting: list[Callable[[], None]] = []

    def shut(self) -> None:
        self.is_open = False

    def open(self) -> None:
        """Resume every waiting reader."""
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for proceed in waiting:
            proceed()

    def when_open(self, proceed: Callable[[], None]) -> None:
        """Call ``proceed`` once when the gate opens."""
        self._waiting.append(proceed)
