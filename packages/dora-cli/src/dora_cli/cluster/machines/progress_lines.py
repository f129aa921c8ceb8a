"""A line of progress for each machine: redrawn on a terminal, printed in order elsewhere."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence

from dora_cli import output
from dora_cli.screen import RedrawnLines, can_redraw


class ProgressLines:
    """Lines with a label each; the methods may be called from any thread."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._current = ["waiting"] * len(labels)
        self._results: list[str | None] = [None] * len(labels)
        size = shutil.get_terminal_size()
        self._drawing = RedrawnLines() if can_redraw() and len(labels) < size.lines else None
        self._written = 0
        """Number of lines that were printed; redrawn lines are not counted."""
        self._lock = threading.Lock()
        self._draw()

    def update(self, number: int, text: str) -> None:
        """Show the current step of a line; visible on a terminal only."""
        with self._lock:
            self._current[number] = text
            self._draw()

    def end(self, number: int, text: str) -> None:
        """Show the result of a line."""
        with self._lock:
            self._results[number] = text
            if self._drawing is not None:
                self._draw()
                return
            while self._written < len(self._results):
                result = self._results[self._written]
                if result is None:
                    break
                output.write(f"{self._labels[self._written]}... {result}")
                self._written += 1

    def _draw(self) -> None:
        """Draw all lines on a terminal; results in full once all lines have one."""
        if self._drawing is not None:
            self._drawing.draw([self._row(number) for number in range(len(self._labels))])

    def _row(self, number: int) -> str:
        label, result = self._labels[number], self._results[number]
        if all(text is not None for text in self._results):
            return f"{label}... {result}"
        text = f"{label}... {self._current[number] if result is None else result}"
        return text.partition("\n")[0][: shutil.get_terminal_size().columns - 1]
