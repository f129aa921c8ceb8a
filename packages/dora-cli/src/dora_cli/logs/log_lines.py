"""Log lines as the terminal shows them: pretty, compact or JSON, and which of them; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

LEVELS = ("stdout", "trace", "debug", "info", "warn", "error")
"""Lowest first: `stdout` lets everything pass, plain printed lines included."""

_RANK = {level: rank for rank, level in enumerate(LEVELS)}


class LogFormat(StrEnum):
    """How a log line looks."""

    PRETTY = "pretty"
    JSON = "json"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a node, or of dora itself (`node` None); keys as in the log files."""

    ts: str
    """RFC 3339, UTC."""
    level: str
    node: str | None
    stream: str
    msg: str
    more: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is known: target, file, line, fields."""

    @property
    def time(self) -> float:
        """Unix time; 0 for a time that cannot be read."""
        try:
            return datetime.fromisoformat(self.ts).timestamp()
        except ValueError:
            return 0.0

    def as_dict(self) -> dict[str, Any]:
        """The entry as the log file has it."""
        facts: dict[str, Any] = {"ts": self.ts, "level": self.level}
        if self.node is not None:
            facts["node"] = self.node
        return facts | {"stream": self.stream, "msg": self.msg} | dict(self.more)


def parse_log_line(text: str) -> LogEntry | None:
    """A line of a log file; None for one that is no entry (a torn last line)."""
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    if not isinstance(facts, dict) or "msg" not in facts:
        return None
    known = {"ts", "level", "node", "stream", "msg"}
    node = facts.get("node")
    return LogEntry(
        str(facts.get("ts", "")),
        str(facts.get("level", "stdout")),
        None if node is None else str(node),
        str(facts.get("stream", "stdout")),
        str(facts["msg"]),
        {key: value for key, value in facts.items() if key not in known},
    )


def format_entry(entry: LogEntry, style: LogFormat, *, colour: str | None = None) -> str:
    """One entry in a style. `colour`: the escape sequence that begins the level, None for none."""
    if style is LogFormat.JSON:
        return json.dumps(entry.as_dict(), ensure_ascii=False)
    clock = datetime.fromtimestamp(entry.time).strftime("%H:%M:%S")
    # A printed line has no level: the word says where it was printed.
    level = entry.stream if entry.level == "stdout" else entry.level.upper()
    if style is LogFormat.COMPACT:
        return f"{clock} {level} {entry.node or '[dora]'}: {entry.msg}"
    padded = f"{level:<6}"
    if colour is not None:
        padded = f"{colour}{padded}\x1b[0m"
    return f"{clock} {padded} {entry.node or '[dora]'}: {entry.msg}"


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which entries are shown. Times are Unix times; `grep` is a part of the message, any case."""

    level: str = "stdout"
    per_node: Mapping[str, str] = field(default_factory=dict)
    """Levels by node; they win over `level`."""
    since: float | None = None
    until: float | None = None
    grep: str | None = None

    def lets_pass(self, entry: LogEntry) -> bool:
        """Whether the entry is shown: time, then level, then text."""
        if self.since is not None and entry.time < self.since:
            return False
        if self.until is not None and entry.time > self.until:
            return False
        wanted = self.per_node.get(entry.node or "", self.level)
        if _RANK.get(entry.level, 0) < _RANK[wanted]:
            return False
        return self.grep is None or self.grep.lower() in entry.msg.lower()

    def apply(self, entries: Iterable[LogEntry]) -> Iterator[LogEntry]:
        """The entries that pass, in their order."""
        return (entry for entry in entries if self.lets_pass(entry))


def parse_level(text: str) -> str:
    """A level in any case; ValueError names the known ones."""
    level = text.strip().lower()
    if level not in _RANK:
        raise ValueError(f"{text!r} is not a log level, expected one of {', '.join(LEVELS)}")
    return level


def parse_log_filter(text: str) -> dict[str, str]:
    """`node=level,node=level` as a mapping; ValueError says what is wrong."""
    levels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        node, equals, level = part.partition("=")
        if not equals or not node:
            raise ValueError(f"{part!r}: expected node=level, for example camera=warn")
        levels[node.strip()] = parse_level(level)
    return levels
