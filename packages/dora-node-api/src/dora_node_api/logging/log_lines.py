"""Log entries for the runner: one JSON object a line on standard output; texts in a terminal."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

LEVELS = ("error", "warn", "info", "debug", "trace")
_OTHER_NAMES = {"warning": "warn", "critical": "error", "fatal": "error"}
MAX_FIELDS = 60 * 1024
"""Bytes of JSON that the fields of one entry may take."""

_writing = threading.RLock()
_interrupted: deque[str] = deque()
"""Lines of signal handlers that interrupted `write_line`."""


def level_name(level: str) -> str:
    """Return one of LEVELS; `info` for an unknown name."""
    name = level.lower()
    name = _OTHER_NAMES.get(name, name)
    return name if name in LEVELS else "info"


def entry_line(
    node_id: str,
    level: str,
    message: str,
    *,
    target: str | None = None,
    fields: Mapping[str, Any] | None = None,
    file: str | None = None,
    line: int | None = None,
) -> str:
    """Return one entry as a line of JSON, without the newline.

    Fields that are too large are replaced by `dora.fields_dropped`, the number of their bytes.
    """
    now = datetime.fromtimestamp(time.time(), UTC)  # virtual in tests, unlike `datetime.now`
    values: dict[str, Any] = {
        "timestamp": now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": level_name(level),
        "node_id": node_id,
        "message": message,
    }
    if target:
        values["target"] = target
    if file:
        values["file"] = file
        values["line"] = line
    if fields:
        plain = {str(key): value for key, value in fields.items()}
        size = len(_json(plain))
        values["fields"] = plain if size <= MAX_FIELDS else {"dora.fields_dropped": size}
    return _json(values)


def text_line(
    level: str,
    message: str,
    *,
    target: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> str:
    """Return one entry as `dora logs` shows it, for a node in a terminal."""
    now = datetime.now().strftime("%H:%M:%S")
    source = f"{target}: " if target and target != "root" else ""
    extras = "".join(f" {key}={value}" for key, value in (fields or {}).items())
    return f"{now} {level_name(level).upper():<6} {source}{message}{extras}"


def write_line(line: str) -> None:
    """Write one whole line to the process's standard output, also if sys.stdout was replaced.

    In a signal handler that interrupted another `write_line`, it follows that line.
    """
    if _writing._is_owned():  # type: ignore[attr-defined]
        _interrupted.append(line)
        return
    try:
        _write(line)
    finally:
        while _interrupted:
            with suppress(IndexError):  # another thread may take it
                _write(_interrupted.popleft())


def _write(line: str) -> None:
    stream = sys.__stdout__ or sys.stdout
    if stream is None:
        return
    line = line.encode("utf-8", "replace").decode()  # without lone surrogates
    try:
        with _writing:
            try:
                stream.write(line + "\n")
                stream.flush()
            except RuntimeError:  # a signal handler that interrupted a print: the buffer is in use
                os.write(stream.fileno(), f"{line}\n".encode())
    except (OSError, ValueError):
        # The terminal or the runner is gone. A log call must not end a node.
        return


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        # Nested keys that are not strings, or a circular reference.
        return json.dumps(
            {k: v if isinstance(v, str) else repr(v) for k, v in dict(value).items()},
            separators=(",", ":"),
        )
