"""Warnings about full inputs; warnings of the start-up become one line with counts.

While nodes load their models, the inputs of slower ones fill up. An input that continues to drop
messages afterwards gets a warning of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from dora_config.protocol.runner_events import LogLine
from dora_daemon.runner.nodes.queues import QueueEntry, QueueRegistry

EDGE = "edge"
"""Field of a warning with the edge that drops messages."""
START_UP_SECONDS = 5.0
"""Seconds after the start for which warnings are held at least."""
MAX_START_UP = 30.0
"""Seconds after which an input counts as started although its node has received nothing yet."""
POLL_SECONDS = 1.0
"""Seconds between two checks of the counters."""
MAX_NAMES = 20
"""Inputs that the line of counts names."""


@dataclass(eq=False)
class StartUpDrops:
    """Passes log entries on; holds the first warnings about full inputs."""

    _registry: QueueRegistry
    _log: Callable[[LogLine], None]
    _summarize: Callable[[str, LogLine], None]
    """Called with the line of counts, and the first of the entries that it replaces."""
    _held: dict[str, LogLine] = field(default_factory=dict, init=False)
    _dropped: dict[str, int] | None = None
    """Drops by edge at the end of the start-up; None before."""
    _polls: int = 0
    _handle: asyncio.TimerHandle | None = None

    def log(self, entry: LogLine) -> None:
        """Process an entry of a node's library."""
        edge = (entry.fields or {}).get(EDGE)
        if isinstance(edge, str) and self._dropped is None:
            self._held[edge] = entry
            self._schedule()
        else:
            self._log(entry)

    def started(self) -> None:
        """Begin the start-up: nodes have been released."""
        self._schedule()

    def _schedule(self) -> None:
        if self._handle is None:
            loop = asyncio.get_running_loop()
            self._handle = loop.call_later(POLL_SECONDS, self._poll)

    def _poll(self) -> None:
        self._handle = None
        self._polls += 1
        if self._dropped is None:
            if self._is_over(self._polls * POLL_SECONDS):
                self.flush()
        else:
            self._warn_about_more(self._dropped)
        if self._dropped is None or self._held:
            self._schedule()

    def _is_over(self, seconds: float) -> bool:
        if seconds < START_UP_SECONDS:
            return False
        queues = (self._queue(edge) for edge in self._held)
        waiting = any(q is not None and not q.keeper.statistics().received for q in queues)
        return not waiting or seconds >= MAX_START_UP

    def flush(self) -> None:
        """End the start-up and log held entries."""
        if self._dropped is not None:
            return
        self._dropped = {edge: self._count(edge) for edge in self._held}
        if len(self._held) == 1:
            self._log(self._held.popitem()[1])
        elif self._held:
            self._summarize(summary(self._dropped), next(iter(self._held.values())))

    def _warn_about_more(self, dropped: dict[str, int]) -> None:
        for edge in [edge for edge in self._held if self._count(edge) > dropped[edge]]:
            self._log(self._held.pop(edge))

    def _count(self, edge: str) -> int:
        entry = self._queue(edge)
        if entry is None:
            return self._registry.dropped_before.get(edge, 0)
        return entry.keeper.statistics().dropped

    def _queue(self, edge: str) -> QueueEntry | None:
        return next((entry for entry in self._registry.all() if entry.spec.edge == edge), None)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.flush()


def summary(dropped: dict[str, int]) -> str:
    """Return the line with the number of messages that each input dropped."""
    inputs = [
        f"{edge.rpartition(' -> ')[2]} ({count})"
        for edge, count in sorted(dropped.items(), key=lambda item: -item[1])
    ]
    more = len(inputs) - MAX_NAMES
    named = ", ".join(inputs[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
    return (
        f"{len(inputs)} inputs were full during start-up and dropped their oldest messages: "
        f"{named}. To keep them, raise `queue_size` or set `queue_policy: backpressure`"
    )
