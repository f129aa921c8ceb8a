"""Log entries: parsing, formats, printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime

from pydantic import ValidationError

from dora_cli import output
from dora_cli.logs.log_options import LogFormat
from dora_config.protocol.runner_events import LogLine


def parse_log_line(text: str) -> LogLine | None:
    """Return the entry in a line of a log file, None if malformed (a torn last line)."""
    try:
        return LogLine.model_validate_json(text)
    except ValidationError:
        return None


def format_entry(entry: LogLine, style: LogFormat, *, colour: str | None = None) -> str:
    """Return an entry as a line. `colour`: escape sequence in front of the level, or None."""
    if style == "json":
        return json.dumps(entry.facts(), ensure_ascii=False)
    clock = datetime.fromtimestamp(entry.time).strftime("%H:%M:%S")
    msg = entry.message.replace("\n", "\n  ")  # indented, so that no line looks like another entry
    # a printed line has no level: its stream is shown instead
    level = entry.stream if entry.level == "stdout" else entry.level.upper()
    if style == "compact":
        return f"{clock} {level} {entry.node or '[dora]'}: {msg}"
    padded = f"{level:<6}"
    if colour is not None:
        padded = f"{colour}{padded}\x1b[0m"
    return f"{clock} {padded} {entry.node or '[dora]'}: {msg}"


class EntryPrinter:
    """Prints entries in one format."""

    def __init__(self, style: LogFormat) -> None:
        self._style = style
        self._coloured = style == "pretty" and output.wants_colour(sys.stdout)

    def print_lines(self, lines: Iterable[str]) -> None:
        """Print lines of log files; ignores malformed ones."""
        self.print(entry for entry in map(parse_log_line, lines) if entry is not None)

    def print(self, entries: Iterable[LogLine]) -> None:
        for entry in entries:
            self.print_one(entry)

    def print_one(self, entry: LogLine) -> None:
        colour = output.escape(entry.level) if self._coloured else None
        output.write(format_entry(entry, self._style, colour=colour))
