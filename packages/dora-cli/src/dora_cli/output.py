"""Everything that reaches the terminal; no other module of dora-cli prints.

Results go to standard output, remarks and errors to standard error. Colours and drawn tables only
on a terminal that wants them (`NO_COLOR`, `TERM=dumb`); a pipe gets plain text of the same words.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import TextIO

from dora_cli import patient_writing

STYLES: Mapping[str, str] = {
    "error": "31",
    "warn": "33",
    "info": "32",
    "debug": "34",
    "trace": "35",
    "dim": "2",
    "bold": "1",
}


def prepare_streams() -> None:
    """Let no character stop a command: what a terminal cannot show is written as an escape.

    A stream that was closed before the start (`>&-`) is one that swallows everything.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal whose user has not asked for plain text."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def styled(text: str, style: str, *, colour: bool) -> str:
    """`text` in one of `STYLES` when `colour`, else as it is."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour and style in STYLES else text


def escape(style: str) -> str | None:
    """The escape sequence that begins a style, None for one without colour."""
    return f"\x1b[{STYLES[style]}m" if style in STYLES else None


def discard(stream: TextIO | None = None) -> None:
    """From now on a stream (standard output) goes nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (stream or sys.stdout).fileno())
    os.close(nowhere)


def finish() -> None:
    """What a stream did not take is not tried again: Python would end with a code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):  # a stream without a descriptor, or a closed one
                discard(stream)


def write(text: str = "") -> None:
    """A line of the result, on standard output."""
    raw(f"{text}\n")


def raw(text: str) -> None:
    """Characters for a terminal, as they are. Raises OSError that names the stream."""
    try:
        if not patient_writing.write(sys.stdout, text):
            discard()
            remark("standard output takes nothing: what is left to print is given up")
    except OSError as error:
        error.filename = "standard output"
        raise


def hurry() -> None:
    """The user wants an end: from now on a stream that takes nothing is given up soon."""
    patient_writing.hurry()


def remark(text: str = "") -> None:
    """A line about the work, on standard error.

    A full disk or a terminal that is gone is no reason to stop: there is nowhere left to say it.
    """
    with suppress(OSError):
        if not patient_writing.write(sys.stderr, f"{text}\n"):
            discard(sys.stderr)


def warn(text: str) -> None:
    """A warning, on standard error."""
    remark(f"{styled('warning', 'warn', colour=wants_colour(sys.stderr))}: {text}")


def failure(text: str) -> None:
    """An error under the header that scripts look for, on standard error."""
    header = styled("[ERROR]", "error", colour=wants_colour(sys.stderr))
    remark(f"{header}\n{text}")


def json_line(value: object) -> None:
    """One JSON object on one line of standard output."""
    write(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows under their columns; drawn by rich on a terminal, aligned text elsewhere."""
    cells = [[str(cell) for cell in row] for row in rows]
    if wants_colour(sys.stdout):
        _drawn_table(columns, cells)
    else:
        write(aligned(columns, cells))


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows as text: columns left-aligned, two spaces apart, no trailing space."""
    lines = [list(columns), *[list(row) for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def counted(number: int, thing: str) -> str:
    """Return number and noun, such as `1 node` or `3 nodes`."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def box(title: str, lines: Sequence[str]) -> str:
    """Text set off by a rule with a title above and a bar at its left, at any width."""
    return "\n".join([f"  ┌─ {title}", *[f"  │ {line}".rstrip() for line in lines], "  └─"])


def _drawn_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box as borders  # imported here: a terminal table is the only use of rich
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*columns, box=borders.SIMPLE_HEAD)
    for row in rows:
        drawn.add_row(*row)
    Console().print(drawn)
