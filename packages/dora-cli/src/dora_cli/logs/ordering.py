"""Order of log entries that arrive from several machines; pure."""

from __future__ import annotations

from collections.abc import Iterable

from dora_cli.logs.log_lines import LogEntry

HOLD = 0.5
"""Seconds for which an entry waits for older ones; a daemon reads its files every 0.2 s."""


class TimeOrder:
    """Holds entries back for a moment and returns them in order of time."""

    def __init__(self, hold: float = HOLD) -> None:
        self._hold = hold
        self._waiting: list[tuple[float, float, LogEntry]] = []
        """Time of the entry, when it is due, and the entry."""

    def add(self, entries: Iterable[LogEntry], now: float) -> None:
        self._waiting += [(entry.time, now + self._hold, entry) for entry in entries]

    def until_due(self, now: float) -> float | None:
        """Return the seconds until an entry is due; None if none waits."""
        if not self._waiting:
            return None
        return max(0.0, min(due for _, due, _ in self._waiting) - now)

    def due(self, now: float) -> list[LogEntry]:
        """Return the entries that are due and all older ones, oldest first.

        The clock of a machine may be wrong: an entry never waits longer than others allow.
        """
        newest = max((at for at, due, _ in self._waiting if due <= now), default=None)
        if newest is None:
            return []
        return self._take(newest)

    def rest(self) -> list[LogEntry]:
        """Return everything that waits, oldest first."""
        return self._take(float("inf"))

    def _take(self, newest: float) -> list[LogEntry]:
        taken = [one for one in self._waiting if one[0] <= newest]
        self._waiting = [one for one in self._waiting if one[0] > newest]
        taken.sort(key=lambda one: one[0])
        return [entry for _, _, entry in taken]
