"""Log entries: parsing, formats, printing; the options about them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from dora_cli import output
from dora_cli.options import checked
from dora_config.protocol.runner_events import LOG_LEVELS, LogLine
from dora_config.yaml.quantities import parse_duration

LogFormat = Literal["pretty", "json", "compact"]
"""Format of a log line."""


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
    msg = entry.message.replace("\n", "\n  ")  # unlike other entries
    # a printed line has no level: its stream is shown instead
    level = entry.stream if entry.level == "stdout" else entry.level.upper()
    if style == "compact":
        return f"{clock} {level} {entry.node or '[dora]'}: {msg}"
    padded = f"{level:<6}"
    if colour is not None:
        padded = f"{colour}{padded}\x1b[0m"
    return f"{clock} {padded} {entry.node or '[dora]'}: {msg}"


def parse_moment(text: str, *, now: float) -> float:
    """Return the Unix time of `text`; a time without zone is local. Raises ValueError."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise ValueError(
            f"{text!r} is not a valid time; expected a duration before now (5m, 1h30m) or RFC 3339 "
            "(2026-01-31T09:30:00Z)"
        ) from None


def parse_level(text: str) -> str:
    """Return the lower-case level; raises ValueError."""
    level = text.strip().lower()
    if level not in LOG_LEVELS:
        raise ValueError(f"{text!r} is not a log level, expected one of {', '.join(LOG_LEVELS)}")
    return level


def parse_log_filter(text: str) -> dict[str, str]:
    """Return the levels in `node=level,node=level` by node; raises ValueError."""
    levels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        node, equals, level = part.partition("=")
        if not equals or not node:
            raise ValueError(f"{part!r}: expected node=level, for example camera=warn")
        levels[node.strip()] = parse_level(level)
    return levels


LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        envvar="DORA_LOG_LEVEL",
        parser=checked(parse_level),
        metavar="LEVEL",
        help="Lowest level to show: stdout (everything), trace, debug, info, warn or error.",
    ),
]
LogStyle = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar="DORA_LOG_FORMAT",
        case_sensitive=False,
        help="Format of log lines; json is one object a line.",
    ),
]
LogFilterText = Annotated[
    str | None,
    typer.Option(
        "--log-filter",
        envvar="DORA_LOG_FILTER",
        metavar="NODE=LEVEL,...",
        help="Lowest level of single nodes; overrides the general level.",
    ),
]


def node_levels(text: str | None) -> dict[str, str]:
    """Return the value of `--log-filter`; raises BadParameter."""
    return checked(parse_log_filter)(text) if text else {}


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
