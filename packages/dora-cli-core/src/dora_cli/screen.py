"""Full-screen pages, redrawn lines and single key presses on a terminal."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dora_cli import output
from dora_config.terminal import one_line

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, UP = "\x1b[H", "\x1b[{}A"
CLEAR_LINE, CLEAR_REST = "\x1b[K", "\x1b[J"


def can_redraw() -> bool:
    """Return whether standard output is a terminal whose cursor can be moved."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


class RedrawnLines:
    """The last lines on a terminal, drawn again in the same place."""

    def __init__(self) -> None:
        self._rows = 0

    def draw(self, lines: Sequence[str]) -> None:
        """Draw over the previous lines; none of them may be wider than the terminal."""
        rows = [output.shown(row, sys.stdout) for line in lines for row in line.split("\n")]
        drawn = "".join(f"{row}{CLEAR_LINE}\n" for row in rows)
        output.raw(f"{self._back()}{drawn}{CLEAR_REST}")
        self._rows = len(rows)

    def erase(self) -> None:
        """Remove the lines, so that others can be written above the next ones."""
        output.raw(f"{self._back()}{CLEAR_REST}")
        self._rows = 0

    def _back(self) -> str:
        return "\r" + (UP.format(self._rows) if self._rows else "")


class Screen:
    """The terminal while it shows pages; made by :func:`screen`."""

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard

    def show(self, lines: Sequence[str]) -> None:
        """Draw the lines, cut to the size of the terminal."""
        size = shutil.get_terminal_size()
        cut = [one_line(line)[: size.columns] for line in lines[: size.lines - 1]]
        output.raw(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in cut) + CLEAR_REST)

    def key(self, seconds: float) -> str | None:
        """Return the next key, None after ``seconds``; `q` at the end of the input."""
        ready, _, _ = select.select([self._keyboard], [], [], seconds)
        if not ready:
            return None
        return os.read(self._keyboard, 64).decode(errors="replace") or "q"


@contextmanager
def _signals_exit() -> Iterator[None]:
    """Raise SystemExit on SIGTERM and SIGHUP, so that the terminal is restored."""

    def exit_by(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, exit_by) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def screen() -> Iterator[Screen]:
    """Use the whole terminal; restores its previous content and settings.

    Remarks and warnings are written afterwards.
    """
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    with output.held_remarks(), _signals_exit():
        try:
            tty.setcbreak(keyboard)
            output.raw(ENTER)
            yield Screen(keyboard)
        finally:
            try:
                output.raw(LEAVE)
            finally:
                termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
