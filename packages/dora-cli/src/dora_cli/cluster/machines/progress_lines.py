"""A line of progress for each machine: redrawn on a terminal, printed in order elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Sequence

from dora_cli import output

UP, CLEAR = "\x1b[{}A", "\x1b[K"


class ProgressLines:
    """Its methods may be called from any thread."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._current = ["waiting"] * len(labels)
        self._results: list[str | None] = [None] * len(labels)
        size = shutil.get_terminal_size()
        self._live = output.wants_colour(sys.stdout) and len(labels) < size.lines
        self._written = 0
        """Lines drawn (on a terminal), or lines that are complete."""
        self._lock = threading.Lock()
        if self._live:
            self._draw()

    def update(self, number: int, text: str) -> None:
        """Show the current step of a line; visible on a terminal only."""
        with self._lock:
            self._current[number] = text
            if self._live:
                self._draw()

    def end(self, number: int, text: str) -> None:
        """Show the result of a line."""
        with self._lock:
            self._results[number] = text
            if self._live:
                self._draw()
                return
            while self._written < len(self._results):
                result = self._results[self._written]
                if result is None:
                    break
                output.write(f"{self._labels[self._written]}... {result}")
                self._written += 1

    def _draw(self) -> None:
        """Draw all lines over the previous ones; results in full once all lines have one."""
        rows = [self._row(number) for number in range(len(self._labels))]
        back = UP.format(self._written) if self._written else ""
        output.raw(back + "".join(f"{row}{CLEAR}\n" for row in rows))
        self._written = sum(row.count("\n") + 1 for row in rows)

    def _row(self, number: int) -> str:
        label, result = self._labels[number], self._results[number]
        if all(text is not None for text in self._results):
            return f"{label}... {result}"
        text = f"{label}... {self._current[number] if result is None else result}"
        return text.partition("\n")[0][: shutil.get_terminal_size().columns - 1]
