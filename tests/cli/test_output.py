"""Plain text for pipes, colours and drawn tables for terminals."""

from __future__ import annotations

import errno
import io
import sys

import pytest

from dora_cli import output

COLUMNS = ("Name", "Nodes")
ROWS = [("a", 3), ("longer name", 12)]


def pretend_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard output and error look like a terminal with colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_a_table_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(COLUMNS, ROWS)
    assert capsys.readouterr().out == (
        "Name         Nodes\n"
        "a            3\n"
        "longer name  12\n"
    )  # fmt: skip


def test_a_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(COLUMNS, [])
    assert capsys.readouterr().out == "Name  Nodes\n"


def test_a_table_on_a_terminal_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_a_terminal(monkeypatch)
    output.table(COLUMNS, ROWS)
    shown = capsys.readouterr().out
    assert "longer name" in shown
    assert "─" in shown


def test_colours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend_a_terminal(monkeypatch)
    output.failure("no")
    output.warn("hm")
    assert capsys.readouterr().err == "\x1b[31m[ERROR]\x1b[0m\nno\n\x1b[33mwarning\x1b[0m: hm\n"
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            output.failure("no")
            assert capsys.readouterr().err == "[ERROR]\nno\n"


def test_colours_of_foreign_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\x1b[31mred\x1b[2J"
    output.write(text)
    output.remark(text)
    assert capsys.readouterr() == ("red\\u001b[2J\n", "red\\u001b[2J\n")
    pretend_a_terminal(monkeypatch)
    output.write(text)
    output.remark(text)
    coloured = "\x1b[31mred\\u001b[2J\x1b[0m\n"
    assert capsys.readouterr() == (coloured, coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    output.write(text)
    assert capsys.readouterr().out == "red\\u001b[2J\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_cell_cannot_add_rows_or_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, terminal: bool
) -> None:
    if terminal:
        pretend_a_terminal(monkeypatch)
    output.table(COLUMNS, [("a\n[red]b[/red]\x1b[1A", 3)])
    assert r"a\n[red]b[/red]\u001b[1A" in capsys.readouterr().out


def test_json_keeps_non_ascii_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.json_line({"name": "größe\n", "n": 1})
    assert capsys.readouterr().out == '{"name": "größe\\n", "n": 1}\n'


def test_a_box() -> None:
    assert output.box("stderr", ["one", ""]) == "  ┌─ stderr\n  │ one\n  │\n  └─"


class FullDisk(io.StringIO):
    """A stream on a full disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_output_errors_of_remarks_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", FullDisk())
    output.remark("stopping")
    output.failure("still")
