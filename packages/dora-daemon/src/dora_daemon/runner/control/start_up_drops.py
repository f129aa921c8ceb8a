"""Warnings about full inputs: those of the start-up become one line with counts.

While nodes load their models, the inputs of the slower ones fill up. An input that goes on dropping
messages afterwards gets its own warning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from dora_config.protocol.runner_events import LogLine
from dora_daemon.runner.logs.logs import now_text
from dora_daemon.runner.nodes.queues import KeptQueue, QueueBook

if TYPE_CHECKING:
    from dora_daemon.runner.service import Runner

EDGE = "edge"
"""Field of a warning that names the edge which drops messages."""
START_UP_SECONDS = 5.0
LONGEST_START_UP = 30.0
"""Seconds after which an input counts as started although its node has taken nothing yet."""
LOOK_SECONDS = 1.0
MOST_NAMED = 20


class StartUpDrops:
    """Passes log entries on; holds the first warnings about full inputs."""

    def __init__(
        self,
        book: QueueBook,
        log: Callable[[LogLine], None],
        summarize: Callable[[str, LogLine], None],
    ) -> None:
        """``summarize`` gets the one line, and the first entry that it stands for."""
        self._book = book
        self._log = log
        self._summarize = summarize
        self._held: dict[str, LogLine] = {}
        self._dropped: dict[str, int] | None = None
        """By edge, when the start-up was over; None before."""
        self._looks = 0
        self._handle: asyncio.TimerHandle | None = None

    def take(self, entry: LogLine) -> None:
        """An entry of a node's library."""
        edge = (entry.fields or {}).get(EDGE)
        if isinstance(edge, str) and self._dropped is None:
            self._held[edge] = entry
            self._look_later()
        else:
            self._log(entry)

    def started(self) -> None:
        """Nodes have begun to send: the start-up takes some seconds from now."""
        self._look_later()

    def _look_later(self) -> None:
        if self._handle is None:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._handle = None
        self._looks += 1
        if self._dropped is None:
            if self._is_over(self._looks * LOOK_SECONDS):
                self.flush()
        else:
            self._warn_of_more(self._dropped)
        if self._dropped is None or self._held:
            self._look_later()

    def _is_over(self, seconds: float) -> bool:
        if seconds < START_UP_SECONDS:
            return False
        queues = (self._queue(edge) for edge in self._held)
        waiting = any(q is not None and not q.keeper.statistics().received for q in queues)
        return not waiting or seconds >= LONGEST_START_UP

    def flush(self) -> None:
        """The start-up is over, or the dataflow is."""
        if self._dropped is not None:
            return
        self._dropped = {edge: self._count(edge) for edge in self._held}
        if len(self._held) == 1:
            self._log(self._held.popitem()[1])
        elif self._held:
            self._summarize(summary(self._dropped), next(iter(self._held.values())))

    def _warn_of_more(self, dropped: dict[str, int]) -> None:
        for edge in [edge for edge in self._held if self._count(edge) > dropped[edge]]:
            self._log(self._held.pop(edge))

    def _count(self, edge: str) -> int:
        kept = self._queue(edge)
        if kept is None:
            return self._book.dropped_before.get(edge, 0)
        return kept.keeper.statistics().dropped

    def _queue(self, edge: str) -> KeptQueue | None:
        return next((kept for kept in self._book.all() if kept.spec.edge == edge), None)

    def close(self) -> None:
        """The dataflow ends: log what is held."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.flush()


def start_up_drops(runner: Runner) -> StartUpDrops:
    """The drops of one runner; the line goes to a log file where no terminal shows it."""

    def summarize(message: str, first: LogLine) -> None:
        node = None if runner.foreground else first.node
        line = {"ts": now_text(), "node": node, "message": message, "fields": None}
        runner.log(first.model_copy(update=line))

    return StartUpDrops(runner.book, runner.log, summarize)


def summary(dropped: dict[str, int]) -> str:
    """The one line: how many messages each input has lost."""
    inputs = [
        f"{edge.rpartition(' -> ')[2]} ({count})"
        for edge, count in sorted(dropped.items(), key=lambda item: -item[1])
    ]
    more = len(inputs) - MOST_NAMED
    named = ", ".join(inputs[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return (
        f"{len(inputs)} inputs were full during start-up and dropped their oldest messages: "
        f"{named}. If that is not wanted, raise `queue_size` or set `queue_policy: backpressure`"
    )
