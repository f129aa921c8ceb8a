"""Lines of log entries on standard output."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest

from dora_node_api.logging.log_lines import entry_line, text_line, write_line
from dora_node_api.logging.logging_bridge import BridgeHandler


def test_a_message_with_a_lone_surrogate_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "__stdout__", stream)
    write_line(entry_line("n", "info", "cannot open a\udcff"))
    stream.seek(0)
    assert json.loads(stream.read())["message"] == "cannot open a?"


def test_entries_in_a_terminal_are_texts(capfd: pytest.CaptureFixture[str]) -> None:
    """Those of a dynamic node, whose output no runner reads."""
    handler = BridgeHandler("n", has_terminal=True)
    record = logging.makeLogRecord(
        {"name": "cam", "levelno": logging.WARNING, "msg": "at %d Hz", "args": (30,), "lens": 2}
    )
    handler.handle(record)
    handler.handle(record)
    shown = capfd.readouterr().out
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARN   cam: at 30 Hz lens=2\n", shown)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO   started", text_line("other", "started"))
