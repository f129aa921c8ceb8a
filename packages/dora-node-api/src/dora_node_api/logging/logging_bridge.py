"""Write the records of Python's `logging` as entries of the dataflow's log, with their level.

The first `Node()` installs it. Then a record becomes one entry where the program's logging would
print it: a handler that writes to standard output or standard error writes entries instead, if its
level and filters pass the record. If no handler up to the root logger prints, the record becomes an
entry in addition to the work of those handlers (a file, for example).
"""

from __future__ import annotations

import logging
import os
import sys
from functools import wraps
from typing import Any

from dora_node_api.logging.log_lines import entry_line, text_line, write_line

TRACE = 5
"""The usual number of level `trace`; every level below DEBUG is written as `trace`."""
_DONE = "_dora_entry"
"""Attribute of records that were written as entries; copies from a queue have it, too."""
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", _DONE}
_BY_NAME = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
    "off": logging.CRITICAL + 10,
}


class BridgeHandler(logging.Handler):
    """Writes each record once as an entry: level, logger as target, file and line, extras.

    With `has_terminal` the entry is plain text.
    """

    def __init__(self, node_id: str, *, has_terminal: bool = False) -> None:
        super().__init__()
        self._node_id = node_id
        self._has_terminal = has_terminal
        self._traceback = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        if _DONE in vars(record):
            return
        vars(record)[_DONE] = True
        try:
            extras = {k: v for k, v in vars(record).items() if k not in _PLAIN}
            write_line(self._line(record, extras))
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - handlers report their errors and continue
            self.handleError(record)

    def _line(self, record: logging.LogRecord, extras: dict[str, Any]) -> str:
        level, message = _level(record.levelno), self._message(record)
        if self._has_terminal:
            return text_line(level, message, target=record.name, fields=extras)
        return entry_line(
            self._node_id,
            level,
            message,
            target=record.name,
            fields=extras,
            file=record.pathname,
            line=record.lineno,
        )

    def _message(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}\n{self._traceback.formatException(record.exc_info)}"
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
        return text


def _level(number: int) -> str:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warn"
    if number >= logging.INFO:
        return "info"
    return "debug" if number >= logging.DEBUG else "trace"


def level_from(setting: str) -> int | None:
    """Return the level of a RUST_LOG setting: its directive without a target, or None."""
    for directive in setting.split(","):
        if (level := _BY_NAME.get(directive.strip().lower())) is not None:
            return level
    return None


def install(node_id: str, *, has_terminal: bool = False) -> None:
    """Connect `logging` with the log of the node. Only the first call in a process has an effect.

    With `has_terminal` no runner reads the output, and the program's handlers print as usual.
    """
    global _bridge
    root = logging.getLogger()
    if _bridge is not None:
        return
    _bridge = BridgeHandler(node_id, has_terminal=has_terminal)
    if not root.handlers:
        root.addHandler(_bridge)
        level = level_from(os.environ.get("RUST_LOG", ""))
        if level is not None or root.level == logging.WARNING:
            # WARNING is the root logger's default; the default of a dataflow's log is info.
            root.setLevel(logging.INFO if level is None else level)
    _patch_basic_config(_bridge)
    if not has_terminal:
        _patch_loggers(_bridge)
        _patch_handlers(_bridge)


_bridge: BridgeHandler | None = None


def _patch_basic_config(bridge: BridgeHandler) -> None:
    original = logging.basicConfig

    @wraps(original)
    def basic_config(**kwargs: Any) -> None:
        root = logging.getLogger()
        if root.handlers == [bridge]:  # basicConfig does nothing if the root has a handler
            root.removeHandler(bridge)
        original(**kwargs)

    logging.basicConfig = basic_config


def _patch_loggers(bridge: BridgeHandler) -> None:
    original = logging.Logger.callHandlers

    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not _is_printed(logger):
            bridge.handle(record)
        original(logger, record)

    logging.Logger.callHandlers = call_handlers  # type: ignore[assignment,method-assign]


def _is_printed(logger: logging.Logger) -> bool:
    """Whether a handler up to the root logger prints, or propagation ends before the root."""
    current = logger
    while not any(_prints(handler) for handler in current.handlers):
        if current.parent is None:
            return False
        if not current.propagate:
            return True
        current = current.parent
    return True


def _prints(handler: logging.Handler) -> bool:
    """Whether a handler writes to this process's standard output or standard error."""
    if isinstance(handler, BridgeHandler):
        return True
    # A StreamHandler has a stream, a RichHandler (of rich) a console with a file.
    stream = getattr(handler, "stream", None) or getattr(
        getattr(handler, "console", None), "file", None
    )
    if stream is None:
        return False
    if stream in (sys.stdout, sys.stderr):
        return True
    try:
        return stream.fileno() in (1, 2)
    except (AttributeError, OSError, ValueError):
        return False  # not a file, or a closed one


def _patch_handlers(bridge: BridgeHandler) -> None:
    original = logging.Handler.handle

    def handle(handler: logging.Handler, record: logging.LogRecord) -> Any:
        if handler is bridge or not _prints(handler):
            return original(handler, record)
        passed: Any = handler.filter(record)
        if passed:  # the record, or on Python 3.11 True
            bridge.handle(record if passed is True else passed)
        return passed

    logging.Handler.handle = handle  # type: ignore[assignment,method-assign]
