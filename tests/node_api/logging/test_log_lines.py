"""Lines of log entries on standard output."""

from __future__ import annotations

import io
import json
import sys

import pytest

from dora_node_api.logging.log_lines import entry_line, write_line


def test_a_message_with_a_lone_surrogate_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "__stdout__", stream)
    write_line(entry_line("n", "info", "cannot open a\udcff"))
    stream.seek(0)
    assert json.loads(stream.read())["message"] == "cannot open a?"
