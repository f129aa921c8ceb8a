"""Log lines about dropped messages (pure)."""

from __future__ import annotations

import math
from collections import Counter

_FIRST_PAUSE = 10.0
"""Seconds between the first two log lines about drops."""
_LONGEST_PAUSE = 320.0
"""Seconds between two log lines."""
_REASONS = 3
"""Reasons that a line names."""


class Drops:
    """Counts dropped messages by reason, and returns what to log: less often if they go on.

    The first message is logged at once.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        """Numbers of messages that were not logged."""
        self._others = 0
        self.total = 0
        self._until = -math.inf
        self._pause = _FIRST_PAUSE

    def add(self, reason: str, now: float, count: int = 1) -> str | None:
        """Count messages; return a text to log."""
        self.total += count
        if reason in self._counts or len(self._counts) < _REASONS:
            self._counts[reason] += count
        else:
            self._others += count
        return self.due(now)

    def due(self, now: float) -> str | None:
        """Return a text to log, if there is one and the last one is long ago."""
        if now < self._until:
            return None
        text = self.rest()
        if text is None:
            self._pause = _FIRST_PAUSE
        else:
            self._until = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return text

    def rest(self) -> str | None:
        """Return a text about what was not logged."""
        if not self._counts:
            return None
        total = self._counts.total() + self._others
        reasons = list(self._counts)
        if total == 1:
            text = f"dropped a message: {reasons[0]}"
        elif len(reasons) == 1:
            text = f"dropped {total} messages: {reasons[0]}"
        else:
            parts = [f"{count} because {reason}" for reason, count in self._counts.items()]
            if self._others:
                parts.append(f"{self._others} for other reasons")
            text = f"dropped {total} messages: {'; '.join(parts)}"
        self._counts.clear()
        self._others = 0
        return text
