"""How long a start waits for links between machines, and what users see meanwhile; pure.

Machines that answer, if slowly, get more time than machines that do not answer at all.
"""

from __future__ import annotations

from dora_coordinator.dataflow.linking import Links
from dora_coordinator.settings import Settings

NEWS_INTERVAL = 5.0
"""Seconds between two looks at what a start waits for."""
CLOCK_PRECISION = 0.01
"""Seconds by which a timer may fire early."""


class LinkWait:
    """Of one start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since = 0.0
        self.waits_for: str | None = None
        """What holds up the start, once that takes long."""

    def begin(self, now: float) -> None:
        """All parts are prepared, and have been given the addresses of their peers."""
        self._since = now

    def next_look(self, now: float) -> float:
        """When to call :meth:`goes_on` next."""
        return now + min(self._settings.link_timeout / 2, NEWS_INTERVAL)

    def goes_on(self, links: Links, now: float, *, allow_unlinked: bool) -> bool:
        """Whether there is still time for links that are missing."""
        slow = links.only_slow and not allow_unlinked
        limit = self._settings.slow_link_timeout if slow else self._settings.link_timeout
        waits = now - self._since < limit - CLOCK_PRECISION
        self.waits_for = f"links: {links.awaited()}" if waits else None
        return waits

    def end(self) -> None:
        self.waits_for = None
