"""Bounded list of events: the first and the last ones are kept; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from dora_config.history.entries import EntriesDropped, HistoryEntry, SavedEntry

FIRST: Final = 200
LAST: Final = 400


class KeptEvents:
    """Keeps the beginning as well as the end, because a crash loop must not hide its cause."""

    def __init__(
        self, entries: Iterable[SavedEntry] = (), *, first: int = FIRST, last: int = LAST
    ) -> None:
        self._max_first = first
        self._first: list[HistoryEntry] = []
        self._last: deque[HistoryEntry] = deque(maxlen=last)
        self.dropped = 0
        """Entries between the two that were dropped."""
        for entry in entries:
            self.add(entry)

    def add(self, entry: SavedEntry) -> None:
        if isinstance(entry, EntriesDropped):
            self.dropped += entry.dropped
            return
        if len(self._first) < self._max_first:
            self._first.append(entry)
            return
        if len(self._last) == self._last.maxlen:
            self.dropped += 1
        self._last.append(entry)

    def entries(self) -> tuple[HistoryEntry, ...]:
        """Return the kept entries, oldest first."""
        return (*self._first, *self._last)

    def saved(self, dataflow: str = "") -> tuple[SavedEntry, ...]:
        """Return the lines of a file: the kept entries, and the number of the dropped ones."""
        if not self.dropped:
            return self.entries()
        dropped = EntriesDropped(dropped=self.dropped, dataflow=dataflow)
        return (*self._first, dropped, *self._last)


def split_dropped(saved: Iterable[SavedEntry]) -> tuple[tuple[HistoryEntry, ...], int]:
    """Return the entries of a file, and how many were dropped before it was written."""
    entries: list[HistoryEntry] = []
    dropped = 0
    for entry in saved:
        if isinstance(entry, EntriesDropped):
            dropped += entry.dropped
        else:
            entries.append(entry)
    return tuple(entries), dropped
