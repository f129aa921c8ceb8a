"""Options of commands that show log lines."""

from __future__ import annotations

from typing import Annotated

import typer

from dora_cli.logs.log_lines import LogFormat, parse_level, parse_log_filter
from dora_cli.options import checked

LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        envvar="DORA_LOG_LEVEL",
        metavar="LEVEL",
        parser=checked(parse_level),
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
