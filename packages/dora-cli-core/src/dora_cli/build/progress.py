"""Progress of a build: plain lines, or on a terminal one redrawn line per node.

While lines are redrawn, the output of a node is kept and printed if its build fails.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from dora_cli import output
from dora_cli.screen import RedrawnLines, can_redraw
from dora_config.protocol.builds import NodeBuildEvent
from dora_config.terminal import one_line
from dora_config.yaml.quantities import show_duration

MAX_KEPT = 10_000
"""Newest lines of output that are kept per node."""


def build_progress(nodes: Sequence[str], *, verbose: bool) -> PrintedProgress:
    """Return the progress that fits standard output."""
    return DrawnProgress(nodes) if can_redraw() and not verbose else PrintedProgress()


class PrintedProgress:
    """Prints each event as a line with the node in front."""

    def __init__(self) -> None:
        self._colour = output.wants_colour(sys.stdout)

    def show(self, event: NodeBuildEvent) -> None:
        """Print one event."""
        node, text = event.node, one_line(event.text)
        match event.what:
            case "step":
                output.write(f"{node}: {output.styled(text, 'bold', colour=self._colour)}")
            case "output":
                output.write(f"{node}:   {text}")
            case "built":
                output.write(f"{node}: ready after {show_duration(event.seconds)}")
            case "failed":
                output.write(f"{node}: failed")
            case "skipped":
                output.write(f"{node}: {text}")
            case "started":
                pass

    def leave_out(self, daemon: str, lines: int) -> None:
        """Report lines of output that a daemon did not send."""
        output.write(_left_out(daemon, lines))


def _left_out(daemon: str, lines: int) -> str:
    return f"{daemon}: ({output.counted(lines, 'line')} left out: too many at once)"


@dataclass(slots=True)
class _NodeLine:
    state: str = "waiting"
    style: str = "dim"
    detail: str = ""
    built: bool = False
    """Whether a step ran."""


class DrawnProgress(PrintedProgress):
    """Redraws one line per node on a terminal."""

    def __init__(self, nodes: Sequence[str]) -> None:
        """``nodes`` are shown from the beginning, others from their first event."""
        super().__init__()
        self._lines = defaultdict(_NodeLine, {node: _NodeLine() for node in nodes})
        self._kept: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=MAX_KEPT))
        self._left_out: Counter[str] = Counter()
        self._drawing = RedrawnLines()

    def show(self, event: NodeBuildEvent) -> None:
        """Update the line of the node."""
        node, text = event.node, one_line(event.text)
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
                self._kept.pop(node, None)
                line = self._lines[node]
                after = f"after {show_duration(event.seconds)}"
                self._set(node, "ready", "info", after if line.built else line.detail)
            case "failed":
                self._set(node, "failed", "error")
                self._print_kept(node)

    def leave_out(self, daemon: str, lines: int) -> None:
        """Count the lines, which are reported if a build on this daemon fails."""
        self._left_out[daemon] += lines

    def _keep(self, node: str, line: str) -> None:
        self._kept[node].append(line)

    def _set(self, node: str, state: str, style: str, detail: str = "") -> None:
        line = self._lines[node]
        line.state, line.style, line.detail = state, style, detail.expandtabs()
        self._draw()

    def _draw(self) -> None:
        """Redraw the lines that fit: the cursor cannot move above the top of the screen."""
        size = shutil.get_terminal_size()
        self._drawing.draw([self._text(node, size.columns) for node in self._shown(size.lines - 1)])

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
        self._drawing.erase()
        for line in self._kept.pop(node, ()):
            output.write(f"{node}: {line}")
        daemon = node.partition("/")[0]
        if lines := self._left_out.pop(daemon, 0):
            output.write(_left_out(daemon, lines))
        self._draw()
