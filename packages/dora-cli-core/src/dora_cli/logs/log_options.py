"""Options about log entries, and the parsers of their values."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import typer

from dora_cli.options import checked
from dora_config.dataflow.sources import LOG_LEVELS
from dora_config.yaml.quantities import parse_duration

LogFormat = Literal["pretty", "json", "compact"]
"""Format of a log line."""


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
