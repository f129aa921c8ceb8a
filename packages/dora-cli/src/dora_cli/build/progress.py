"""Progress of a build: plain lines, or on a terminal one redrawn line per node.

While lines are redrawn, the output of a node is kept and printed if its build fails.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from dora_cli import output
from dora_config.protocol.builds import NodeBuildEvent
from dora_config.yaml.quantities import show_duration

MOST_KEPT = 10_000
"""Most lines of output kept per node."""

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x1f\x7f]")
"""Characters that would move the cursor or change colours."""
_UP, _CLEAR_LINE, _CLEAR_REST = "\x1b[{}A", "\x1b[K", "\x1b[J"


def build_progress(nodes: Sequence[str], *, verbose: bool) -> BuildProgress:
    """Return the progress that fits standard output: redrawn lines need cursor movement."""
    drawn = not verbose and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    return DrawnProgress(nodes) if drawn else BuildProgress()


class BuildProgress(AbstractContextManager[None]):
    """Prints each event as a line with the node in front."""

    def __init__(self) -> None:
        self._colour = output.wants_colour(sys.stdout)

    def show(self, event: NodeBuildEvent) -> None:
        """Print one event."""
        match event.what:
            case "step":
                self.note(f"{event.node}: {output.styled(event.text, 'bold', colour=self._colour)}")
            case "output":
                self.note(f"{event.node}:   {event.text}")
            case "built":
                self.note(f"{event.node}: ready after {show_duration(event.seconds)}")
            case "failed":
                self.note(f"{event.node}: failed")
            case "skipped":
                self.note(f"{event.node}: {event.text}")
            case "started":
                pass

    def note(self, text: str) -> None:
        """Print a remark about the output."""
        output.write(text)

    def __exit__(self, *exception: object) -> None:
        """Do nothing: printed lines stay."""


@dataclass(slots=True)
class _NodeLine:
    state: str = "waiting"
    style: str = "dim"
    detail: str = ""
    built: bool = False
    """Whether a step ran."""


class DrawnProgress(BuildProgress):
    """Redraws one line per node on a terminal."""

    def __init__(self, nodes: Sequence[str]) -> None:
        """``nodes`` are shown from the beginning, others from their first event."""
        super().__init__()
        self._lines = defaultdict(_NodeLine, {node: _NodeLine() for node in nodes})
        self._kept: dict[str, list[str]] = defaultdict(list)
        self._drawn = 0

    def show(self, event: NodeBuildEvent) -> None:
        """Update the line of the node."""
        node, text = event.node, event.text
        match event.what:
            case "started" | "skipped":
                self._set(node, "building", "bold", text)
            case "step":
                self._lines[node].built = True
                self._keep(node, text)
                self._set(node, "building", "bold", text)
            case "output":
                self._keep(node, f"  {text}")
                self._set(node, "building", "bold", text.strip())
            case "built":
                line = self._lines[node]
                after = f"after {show_duration(event.seconds)}"
                self._set(node, "ready", "info", after if line.built else line.detail)
            case "failed":
                self._set(node, "failed", "error")
                self._print_kept(node)

    def note(self, text: str) -> None:
        """Ignore the remark: redrawn lines show only the newest output."""

    def _keep(self, node: str, line: str) -> None:
        if len(self._kept[node]) < MOST_KEPT:
            self._kept[node].append(line)

    def _set(self, node: str, state: str, style: str, detail: str = "") -> None:
        line = self._lines[node]
        line.state, line.style, line.detail = state, style, _CONTROL.sub("", detail)
        self._draw()

    def _draw(self) -> None:
        """Redraw the lines that fit: the cursor cannot move above the top of the screen."""
        size = shutil.get_terminal_size()
        lines = [self._text(node, size.columns) for node in self._shown(size.lines - 1)]
        up = _UP.format(self._drawn) if self._drawn else ""
        output.raw(up + "".join(f"\r{line}{_CLEAR_LINE}\n" for line in lines) + _CLEAR_REST)
        self._drawn = len(lines)

    def _shown(self, most: int) -> list[str]:
        nodes = list(self._lines)
        if len(nodes) <= most:
            return nodes
        active = [node for node in nodes if self._lines[node].state in ("building", "failed")]
        rest = [node for node in nodes if node not in active]
        chosen = {*active[:most], *rest[: max(0, most - len(active))]}
        return [node for node in nodes if node in chosen]

    def _text(self, node: str, columns: int) -> str:
        line = self._lines[node]
        begin = f"{node:<{max(map(len, self._lines))}}  "
        rest = f"{line.state:<8} {line.detail}".rstrip()[: max(0, columns - 1 - len(begin))]
        state = output.styled(rest[:8], line.style, colour=self._colour)
        return f"{begin[: columns - 1]}{state}{rest[8:]}"

    def _print_kept(self, node: str) -> None:
        """Print the output of a failed node above the redrawn lines."""
        up = _UP.format(self._drawn) if self._drawn else ""
        output.raw(f"{up}\r{_CLEAR_REST}")
        self._drawn = 0
        for line in self._kept.pop(node, ()):
            output.write(f"{node}: {line}")
        self._draw()
