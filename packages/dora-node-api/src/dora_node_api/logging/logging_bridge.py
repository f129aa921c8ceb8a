"""Python's `logging` as entries of the dataflow's log, with the level they were logged at.

The first `Node()` puts a handler on the root logger, unless the program has configured logging
itself by then. `logging.basicConfig()` afterwards keeps that handler, with the level it is given;
with a handler, stream or file of the program's own it does what it always does.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from dora_node_api.logging.log_lines import entry_line, write_line

TRACE = 5
"""Everything below DEBUG is `trace`; this is the usual number for it."""
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BY_NAME = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
    "off": logging.CRITICAL + 10,
}


class BridgeHandler(logging.Handler):
    """Prints each record as an entry: level, logger name as target, file and line, extras."""

    def __init__(self, node_id: str) -> None:
        super().__init__()
        self._node_id = node_id
        self._traceback = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            extras = {k: v for k, v in vars(record).items() if k not in _PLAIN}
            write_line(
                entry_line(
                    self._node_id,
                    _level(record.levelno),
                    self._message(record),
                    target=record.name,
                    fields=extras,
                    file=record.pathname,
                    line=record.lineno,
                )
            )
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - a handler reports its errors and goes on (logging's rule)
            self.handleError(record)

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
    """The level in a RUST_LOG setting: its directive without a target. None if it has none."""
    for directive in setting.split(","):
        if (level := _BY_NAME.get(directive.strip().lower())) is not None:
            return level
    return None


def install(node_id: str) -> None:
    """Bridge the root logger, unless the program has given it a handler already."""
    root = logging.getLogger()
    if root.handlers:
        return
    bridge = BridgeHandler(node_id)
    asked = level_from(os.environ.get("RUST_LOG", ""))
    root.addHandler(bridge)
    if asked is not None or root.level == logging.WARNING:
        # WARNING is what the root logger starts with; the default of a dataflow's log is info.
        root.setLevel(logging.INFO if asked is None else asked)
    _patch_basic_config(bridge)


def _patch_basic_config(bridge: BridgeHandler) -> None:
    original = logging.basicConfig

    def basic_config(**kwargs: Any) -> None:
        root = logging.getLogger()
        own = any(kwargs.get(name) is not None for name in ("handlers", "stream", "filename"))
        if not own:
            for name in ("handlers", "stream", "filename"):
                kwargs.pop(name, None)
            kwargs["handlers"] = [bridge]
        if root.handlers == [bridge]:
            root.removeHandler(bridge)
        original(**kwargs)

    basic_config.__doc__ = original.__doc__
    basic_config.__name__ = "basicConfig"
    logging.basicConfig = basic_config
