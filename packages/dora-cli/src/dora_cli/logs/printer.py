"""Prints log entries that pass a filter."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable

from dora_cli import output
from dora_cli.logs.log_lines import LogEntry, LogFilter, LogFormat, format_entry, parse_log_line


class EntryPrinter:
    """Prints the entries that pass ``wanted`` in one format."""

    def __init__(self, wanted: LogFilter, style: LogFormat) -> None:
        self._wanted = wanted
        self._style = style
        self._coloured = style is LogFormat.PRETTY and output.wants_colour(sys.stdout)

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print lines of log files; ignores malformed ones."""
        self.print(entry for entry in map(parse_log_line, lines) if entry is not None)

    def print(self, entries: Iterable[LogEntry], *, tail: int | None = None) -> None:
        """Print entries, with ``tail`` only the last ones that pass."""
        chosen = self._wanted.apply(entries)
        for entry in chosen if tail is None else deque(chosen, maxlen=tail):
            colour = output.escape(entry.level) if self._coloured else None
            output.write(format_entry(entry, self._style, colour=colour))
