"""Converts lines of a node's output to log entries, and entries to text; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from dora_config.dataflow.sources import LOG_LEVELS, LogLevel
from dora_config.protocol.runner_events import LogLine
from dora_node_api.protocol.frames import without_surrogates

MAX_LINE = 1024 * 1024
"""Bytes of a line that are kept."""

CUT_MARK = " ... [line cut: longer than 1 MB]"

_NAMES: dict[str, LogLevel] = {
    **{level: level for level in LOG_LEVELS},
    "warning": "warn",
    "critical": "error",
    "fatal": "error",
}


def entry_from_line(text: str, *, node: str, stream: str, ts: str) -> LogLine:
    """Return the entry of a printed line.

    A JSON object with level and message is a structured entry; any other line, also one that is
    nested too deeply to be encoded again, is the message of an entry of level ``stdout``.
    """
    if text.startswith("{") and text.endswith("}"):
        try:
            values = from_json(without_surrogates(text))
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            entry = _structured(values, node=node, stream=stream, ts=ts)
            if entry is not None:
                return entry
    return LogLine.model_construct(
        kind="log",
        ts=ts,
        level="stdout",
        node=node,
        stream=stream,
        message=text,
        target=None,
        file=None,
        line=None,
        fields=None,
    )


def _structured(values: Mapping[str, Any], *, node: str, stream: str, ts: str) -> LogLine | None:
    level = values.get("level")
    name = _NAMES.get(level.lower()) if isinstance(level, str) else None
    message = values.get("message", values.get("msg"))
    fields = values.get("fields")
    if isinstance(fields, dict) and message is None:
        # format of Rust's tracing: the message is one of the fields
        fields = dict(fields)
        message = fields.pop("message", None)
    if name is None or not isinstance(message, str):
        return None
    line = values.get("line")
    return LogLine.model_construct(
        kind="log",
        ts=values["timestamp"] if _is_time(values.get("timestamp")) else ts,
        level=name,
        node=node,
        stream=stream,
        message=message,
        target=_text(values.get("target")),
        file=_text(values.get("file")),
        line=line if isinstance(line, int) and not isinstance(line, bool) else None,
        fields=fields if isinstance(fields, dict) and fields else None,
    )


def _is_time(value: object) -> bool:
    return isinstance(value, str) and len(value) >= 20 and value[4] == "-" and value[10] == "T"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def file_line(entry: LogLine) -> str:
    """Return the line of an entry in the log file, without the newline."""
    return json.dumps(entry.facts(), ensure_ascii=False, separators=(",", ":"))


def message_text(
    entry: LogLine, *, dataflow_id: str, daemon_id: str | None, build_id: str | None
) -> str:
    """Return the text of an entry on ``dora/logs`` and ``send_logs_as``."""
    text = json.dumps(
        {
            "build_id": build_id,
            "dataflow_id": dataflow_id,
            "node_id": entry.node,
            "daemon_id": daemon_id,
            "level": entry.level if entry.level == "stdout" else entry.level.upper(),
            "target": entry.target,
            "module_path": None,
            "file": entry.file,
            "line": entry.line,
            "message": entry.message,
            "timestamp": entry.ts,
            "fields": entry.fields,
        },
        ensure_ascii=False,
    )
    return text.encode("utf-8", "replace").decode()  # it may name a path that is not UTF-8


class OutputSplitter:
    """Splits a stream into lines of text; a line longer than MAX_LINE is cut, with a mark."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that ``data`` completes."""
        self._buffer += data
        if b"\n" not in data:
            self._limit()
            return []
        *complete, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        lines = []
        for raw in complete:
            lines.append(self._text(raw, cut=self._cut or len(raw) > MAX_LINE))
            self._cut = False
        self._limit()
        return lines

    def flush(self) -> list[str]:
        """Return the text after the last newline, at the end of the stream."""
        raw, cut = bytes(self._buffer), self._cut
        self._buffer.clear()
        self._cut = False
        return [self._text(raw, cut=cut)] if raw else []

    def _limit(self) -> None:
        if len(self._buffer) > MAX_LINE:
            del self._buffer[MAX_LINE:]
            self._cut = True

    @staticmethod
    def _text(raw: bytes, *, cut: bool) -> str:
        text = raw[:MAX_LINE].decode("utf-8", "replace").removesuffix("\r")
        return text + CUT_MARK if cut else text


def as_level(name: str) -> LogLevel:
    """Return the level of a common name (``WARNING``, ``critical``); info for unknown names."""
    return _NAMES.get(name.lower(), "info")
