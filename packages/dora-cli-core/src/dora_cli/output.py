"""Output to the terminal; no other module of dora-cli prints.

Results go to standard output, remarks and errors to standard error. Colours and drawn tables are
used on terminals only (unless `NO_COLOR` or `TERM=dumb` is set); a pipe gets the same text, plain.

Control characters are shown escaped: names, errors and output of nodes and machines may contain
them. Complete colour sequences pass to terminals.

Each piece is written when the stream is ready, so that the wait for its reader can be limited.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TextIO

from dora_config.streams import STANDARD_OUTPUT, discard
from dora_config.terminal import one_line, visible

STYLES: Mapping[str, str] = {
    "error": "31",
    "warn": "33",
    "info": "32",
    "debug": "34",
    "trace": "35",
    "dim": "2",
    "bold": "1",
}
MAX_HELD = 100
"""Newest remarks that are kept while the whole terminal is in use."""

PATIENCE = 3.0
"""Seconds after the call of `limit_waits` until a blocked stream is discarded."""

_PIECE = 4096
"""Bytes that a writable pipe accepts at once (PIPE_BUF)."""
_POLL_SECONDS = 0.2
"""Interval in which a wait checks for `limit_waits`."""

_limited_since: list[float] = []
"""Time of the first call of `limit_waits`; empty before it."""

_held: deque[str] | None = None
"""Remarks to write later; None: they are written at once."""


def prepare_streams() -> None:
    """Write characters that a terminal cannot show as escapes; replace closed streams (`>&-`)."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until exit
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def wants_colour(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal on which colours are not disabled."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def styled(text: str, style: str, *, colour: bool) -> str:
    """Return `text` in one of `STYLES` if `colour`, else unchanged."""
    return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if colour and style in STYLES else text


def escape(style: str) -> str | None:
    """Return the escape sequence that starts a style; None for a style without colour."""
    return f"\x1b[{STYLES[style]}m" if style in STYLES else None


def write(text: str = "") -> None:
    """Write a line of the result to standard output; raises as `raw`."""
    raw(f"{shown(text, sys.stdout)}\n")


def shown(text: str, stream: TextIO) -> str:
    """Return ``text`` as it is written to ``stream``: with colours if the stream shows them,
    without other control characters."""
    return text if text.isprintable() else visible(text, colour=wants_colour(stream))


def raw(text: str) -> None:
    """Write text to standard output unchanged, for `screen`; raises OSError with its name."""
    try:
        if not _write_to(sys.stdout, text):
            discard(sys.stdout)
            remark("standard output is blocked: discarded the remaining output")
    except OSError as error:
        error.filename = STANDARD_OUTPUT
        raise


def is_output_error(error: Exception) -> bool:
    """Return whether standard output could not be written, such as a pipe without a reader."""
    return isinstance(error, OSError) and error.filename == STANDARD_OUTPUT


def limit_waits() -> None:
    """Discard streams that are still blocked `PATIENCE` seconds from now."""
    if not _limited_since:
        _limited_since.append(time.monotonic())


def _write_to(stream: TextIO, text: str) -> bool:
    """Write all of `text`, waiting if necessary; return False if the wait reached its limit."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a file, as in tests
        stream.write(text)
        stream.flush()
        return True
    stream.flush()
    data = memoryview(text.encode(stream.encoding or "utf-8", stream.errors or "backslashreplace"))
    while data:
        if not _wait_until_writable(descriptor):
            return False
        try:
            data = data[os.write(descriptor, data[:_PIECE]) :]
        except BlockingIOError:  # non-blocking, and another process has filled it
            continue
    return True


def _wait_until_writable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    begun = time.monotonic()
    while not poll.poll(_POLL_SECONDS * 1000):
        if _limited_since and time.monotonic() - max(begun, _limited_since[0]) > PATIENCE:
            return False
    return True


def remark(text: str = "") -> None:
    """Write a line about progress to standard error; ignores a full disk or closed terminal."""
    if _held is not None:
        _held.append(text)
        return
    with suppress(OSError):
        if not _write_to(sys.stderr, f"{shown(text, sys.stderr)}\n"):
            discard(sys.stderr)


@contextmanager
def held_remarks() -> Iterator[None]:
    """Write remarks after the block, because a full-screen page would overwrite them."""
    global _held
    held: deque[str] = deque(maxlen=MAX_HELD)
    _held = held
    try:
        yield
    finally:
        _held = None
        for text in held:
            remark(text)


def warn(text: str) -> None:
    """Write a warning to standard error."""
    remark(f"{styled('warning', 'warn', colour=wants_colour(sys.stderr))}: {text}")


def failure(text: str) -> None:
    """Write an error to standard error, below the header that scripts search for."""
    header = styled("[ERROR]", "error", colour=wants_colour(sys.stderr))
    remark(f"{header}\n{text}")


def json_line(value: object) -> None:
    """Write a JSON object as one line to standard output."""
    write(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows as a table: drawn by rich on a terminal, otherwise aligned text."""
    cells = [[str(cell) for cell in row] for row in rows]
    if wants_colour(sys.stdout):
        _drawn_table(columns, cells)
    else:
        write(aligned(columns, cells))


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text: columns left-aligned, two spaces apart, no trailing spaces."""
    lines = [list(columns), *[[one_line(cell) for cell in row] for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def counted(number: int, thing: str) -> str:
    """Return number and noun, such as `1 node` or `3 nodes`."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def box(title: str, lines: Sequence[str]) -> str:
    """Return lines with a title above and a bar on the left."""
    return "\n".join([f"  ┌─ {title}", *[f"  │ {line}".rstrip() for line in lines], "  └─"])


def _drawn_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box as borders  # imported here: slow, and used on terminals only
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(*columns, box=borders.SIMPLE_HEAD)
    for row in rows:
        drawn.add_row(*[Text(one_line(cell)) for cell in row])
    Console().print(drawn)
