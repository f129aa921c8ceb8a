"""Full-screen pages on a terminal and single key presses."""

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
    """The terminal while it shows pages; made by :func:`screen`."""

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard

    def show(self, lines: Sequence[str]) -> None:
        """Draw the lines, cut to the size of the terminal."""
        size = shutil.get_terminal_size()
        cut = [line[: size.columns] for line in lines[: size.lines - 1]]
        output.raw(HOME + "".join(f"{line}{CLEAR_LINE}\n" for line in cut) + CLEAR_REST)

    def key(self, seconds: float) -> str | None:
        """Return the next key, None after ``seconds``; `q` at the end of the input."""
        ready, _, _ = select.select([self._keyboard], [], [], seconds)
        if not ready:
            return None
        return os.read(self._keyboard, 64).decode(errors="replace") or "q"


@contextmanager
def screen() -> Iterator[Screen]:
    """Use the whole terminal; restores its previous content and settings."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        output.raw(ENTER)
        yield Screen(keyboard)
    finally:
        output.raw(LEAVE)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
