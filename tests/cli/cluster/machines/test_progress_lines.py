"""A line of progress for each machine."""

from __future__ import annotations

import pytest

from dora_cli import output
from dora_cli.cluster.machines.progress_lines import ProgressLines


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
    monkeypatch.setattr(output, "wants_colour", lambda _stream: True)
    lines = ProgressLines(["a", "b"])
    lines.update(1, "connecting")
    lines.end(1, "FAILED: no\n  reason")
    lines.end(0, "OK")
    drawn = capsys.readouterr().out.split("\x1b[2A")
    assert drawn[0] == "a... waiting\x1b[K\nb... waiting\x1b[K\n"
    assert drawn[1] == "a... waiting\x1b[K\nb... connecting\x1b[K\n"
    assert drawn[-1] == "a... OK\x1b[K\nb... FAILED: no\n  reason\x1b[K\n"
