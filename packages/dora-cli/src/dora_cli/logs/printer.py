"""Prints log entries."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from dora_cli import output
from dora_cli.logs.log_lines import LogEntry, LogFormat, format_entry, parse_log_line


class EntryPrinter:
    """Prints entries in one format."""

    def __init__(self, style: LogFormat) -> None:
        self._style = style
        self._coloured = style is LogFormat.PRETTY and output.wants_colour(sys.stdout)

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print lines of log files; ignores malformed ones."""
        self.print(entry for entry in map(parse_log_line, lines) if entry is not None)

    def print(self, entries: Iterable[LogEntry]) -> None:
        for entry in entries:
            colour = output.escape(entry.level) if self._coloured else None
            output.write(format_entry(entry, self._style, colour=colour))
