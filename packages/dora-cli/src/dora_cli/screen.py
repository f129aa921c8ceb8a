"""A terminal that is drawn again and again and hears single keys; gives back what it found."""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dora_cli import output

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """Use :func:`screen`."""

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard

    def show(self, lines: Sequence[str]) -> None:
        """Draw these lines, cut to the size of the terminal."""
        size = shutil.get_terminal_size()
        cut = [line[: size.columns] for line in lines[: size.lines - 1]]
        output.raw(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in cut) + CLEAR_REST)

    def key(self, seconds: float) -> str | None:
        """The next key, None when none comes in time."""
        ready, _, _ = select.select([self._keyboard], [], [], seconds)
        if not ready:
            return None
        return os.read(self._keyboard, 64).decode(errors="replace") or "q"  # its end: quit


@contextmanager
def screen() -> Iterator[Screen]:
    """The terminal, whole; put back as it was at the end, whatever happens."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        output.raw(ENTER)
        yield Screen(keyboard)
    finally:
        output.raw(LEAVE)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
