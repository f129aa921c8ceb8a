"""Log entries: formats, parsing and filters."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from dora_cli.logs.log_lines import format_entry, parse_log_line
from dora_cli.logs.log_options import LogFormat, parse_level, parse_log_filter
from dora_config.protocol.runner_events import LogLine

TS = "2026-08-21T09:30:00.123Z"
CLOCK = datetime.fromisoformat(TS).astimezone().strftime("%H:%M:%S")
ENTRY = LogLine(ts=TS, level="info", node="planner", message="path found", target="planner.core")
PRINTED = LogLine(ts=TS, level="stdout", node="planner", message="x")
COMPLAINT = LogLine(ts=TS, level="stdout", node="planner", stream="stderr", message="oh")
SYSTEM = LogLine(ts=TS, level="warn", message="careful")


@pytest.mark.parametrize(
    ("entry", "style", "line"),
    [
        (ENTRY, "pretty", f"{CLOCK} INFO   planner: path found"),
        (PRINTED, "pretty", f"{CLOCK} stdout planner: x"),
        (COMPLAINT, "pretty", f"{CLOCK} stderr planner: oh"),
        (SYSTEM, "pretty", f"{CLOCK} WARN   [dora]: careful"),
        (ENTRY, "compact", f"{CLOCK} INFO planner: path found"),
        (SYSTEM, "compact", f"{CLOCK} WARN [dora]: careful"),
    ],
)
def test_formats(entry: LogLine, style: LogFormat, line: str) -> None:
    assert format_entry(entry, style) == line


def test_colour_is_around_the_level_only() -> None:
    line = format_entry(ENTRY, "pretty", colour="\x1b[32m")
    assert line == f"{CLOCK} \x1b[32mINFO  \x1b[0m planner: path found"


def test_lines_of_a_message_cannot_look_like_entries() -> None:
    forged = LogLine(
        ts=TS, level="info", node="planner", message="a\n12:00:00 ERROR  [dora]: failed"
    )
    for style in ("pretty", "compact"):
        assert format_entry(forged, style).endswith("a\n  12:00:00 ERROR  [dora]: failed")


def test_json_is_the_line_of_the_log_file() -> None:
    line = format_entry(ENTRY, "json")
    assert json.loads(line) == {
        "ts": TS,
        "level": "info",
        "node": "planner",
        "stream": "stdout",
        "msg": "path found",
        "target": "planner.core",
    }
    assert parse_log_line(line) == ENTRY
    assert parse_log_line(format_entry(SYSTEM, "json")) == SYSTEM


@pytest.mark.parametrize("line", ["", "{", "[]", "5", '{"level": "info"}'])
def test_malformed_lines(line: str) -> None:
    assert parse_log_line(line) is None


def test_levels_of_nodes() -> None:
    assert parse_log_filter("a=WARN, b=stdout,") == {"a": "warn", "b": "stdout"}
    assert parse_level("Info") == "info"
    with pytest.raises(ValueError, match="'loud' is not a log level, expected one of stdout, "):
        parse_log_filter("a=loud")
    with pytest.raises(ValueError, match="'warn': expected node=level"):
        parse_log_filter("warn")
