"""Output of builds: what is kept for a failure, and control characters."""

from __future__ import annotations

import re
import sys
from typing import Literal

import pytest

from dora_cli.build import progress
from dora_cli.build.progress import DrawnProgress, PrintedProgress, build_progress
from dora_config.protocol.builds import NodeBuildEvent

What = Literal["started", "step", "skipped", "output", "built", "failed"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> DrawnProgress:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(progress, "MAX_KEPT", 3)
    shown = build_progress(["robot/a"], verbose=False)
    assert isinstance(shown, DrawnProgress)
    return shown


def send(shown: PrintedProgress, what: What, *texts: str) -> None:
    for text in texts or ("",):
        shown.show(NodeBuildEvent(node="robot/a", what=what, text=text))


def after_failure(shown: PrintedProgress, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that a failure prints above the redrawn ones."""
    capsys.readouterr()
    send(shown, "failed")
    written = re.sub(r"\x1b\[\d*[A-Z]|\r", "", capsys.readouterr().out)
    return [line for line in written.split("\n") if line.startswith("robot/a: ")]


def test_the_end_of_the_output_is_kept(
    drawn: DrawnProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    send(drawn, "output", *(f"line {number}" for number in range(9)), "error: no such file")
    assert after_failure(drawn, capsys) == [
        "robot/a:   line 7",
        "robot/a:   line 8",
        "robot/a:   error: no such file",
    ]


def test_the_output_of_a_build_that_succeeded_is_discarded(
    drawn: DrawnProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    send(drawn, "output", "earlier build")
    send(drawn, "built")
    send(drawn, "output", "this build")
    assert after_failure(drawn, capsys) == ["robot/a:   this build"]


def test_lines_that_were_left_out_are_reported_with_the_failure(
    drawn: DrawnProgress, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn.leave_out("robot", 2)
    drawn.leave_out("other", 9)
    drawn.leave_out("robot", 3)
    capsys.readouterr()
    send(drawn, "failed")
    out = capsys.readouterr().out
    assert "robot: (5 lines left out: too many at once)" in out
    assert "other" not in out


CONTROLS = [
    ("\x1b[1;31mred\x1b[0m", "red"),
    ("\x9b31mred", r"\u009b31mred"),
    ("\x1b]0;title\x07a\tb", "\\u001b]0;title\\u0007a\tb"),
    ("größe", "größe"),
]


@pytest.mark.parametrize(("text", "shown"), CONTROLS)
def test_control_characters_are_escaped(
    drawn: DrawnProgress, capsys: pytest.CaptureFixture[str], text: str, shown: str
) -> None:
    send(drawn, "output", f">{text}")
    assert after_failure(drawn, capsys) == [f"robot/a:   >{shown}"]
    send(PrintedProgress(), "output", f">{text}")
    assert capsys.readouterr().out == f"robot/a:   >{shown}\n"
