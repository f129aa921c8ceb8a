"""A line of progress for each machine."""

from __future__ import annotations

import sys

import pytest

from dora_cluster.machines.remote_machine import ProgressLines


def test_lines_are_printed_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(["a", "b", "c"])
    lines.update(0, "working")
    lines.end(1, "OK")
    assert capsys.readouterr().out == ""
    lines.end(0, "FAILED: no\n  reason")
    assert capsys.readouterr().out == "a... FAILED: no\n  reason\nb... OK\n"
    lines.end(2, "OK")
    assert capsys.readouterr().out == "c... OK\n"


def test_terminal_shows_the_current_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")  # lines are redrawn without colours too
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = ProgressLines(["a", "b"])
    lines.update(1, "connecting")
    lines.end(1, "FAILED: no\n  reason")
    lines.end(0, "OK")
    drawn = capsys.readouterr().out.split("\x1b[J")
    assert drawn[0] == "\ra... waiting\x1b[K\nb... waiting\x1b[K\n"
    assert drawn[1] == "\r\x1b[2Aa... waiting\x1b[K\nb... connecting\x1b[K\n"
    assert drawn[-2] == "\r\x1b[2Aa... OK\x1b[K\nb... FAILED: no\x1b[K\n  reason\x1b[K\n"
