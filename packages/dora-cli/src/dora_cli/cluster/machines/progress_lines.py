"""A line for each machine: live on a terminal, one after the other elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Sequence
from types import TracebackType

from dora_cli import output

UP, CLEAR = "\x1b[{}A", "\x1b[K"


class Lines:
    """A context manager; its methods may be called from any thread."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._said = ["waiting"] * len(labels)
        self._ended: list[str | None] = [None] * len(labels)
        self._live = output.wants_colour(sys.stdout) and len(labels) < _height()
        self._written = 0
        """Lines that are done with, and (live) that were drawn."""
        self._lock = threading.Lock()

    def __enter__(self) -> Lines:
        if self._live:
            self._draw()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def say(self, number: int, text: str) -> None:
        """What is being done now; seen on a terminal only."""
        with self._lock:
            self._said[number] = text
            if self._live:
                self._draw()

    def end(self, number: int, text: str) -> None:
        """How it went; lines come in their order."""
        with self._lock:
            self._ended[number] = text
            if self._live:
                self._draw()
                return
            while self._written < len(self._ended):
                ended = self._ended[self._written]
                if ended is None:
                    break
                output.write(f"{self._labels[self._written]}... {ended}")
                self._written += 1

    def _draw(self) -> None:
        """All lines over the ones that are there; a long reason is drawn in full at the end."""
        rows = [self._row(number) for number in range(len(self._labels))]
        back = UP.format(self._written) if self._written else ""
        output.raw(back + "".join(f"{row}{CLEAR}\n" for row in rows))
        self._written = sum(row.count("\n") + 1 for row in rows)

    def _row(self, number: int) -> str:
        label, ended = self._labels[number], self._ended[number]
        if all(text is not None for text in self._ended):
            return f"{label}... {ended}"
        text = f"{label}... {self._said[number] if ended is None else ended}".partition("\n")[0]
        return text[: shutil.get_terminal_size().columns - 1]


def _height() -> int:
    return shutil.get_terminal_size().lines
