"""How long a start waits for links between machines; pure.

Machines that answer slowly get more time than machines that do not answer.
"""

from __future__ import annotations

from dora_coordinator.links.links import Links
from dora_coordinator.settings import Settings

MAX_CHECK_INTERVAL = 5.0
"""Seconds between two checks of the missing links, and so between two progress messages."""
CLOCK_PRECISION = 0.01
"""Seconds by which a timer may fire early."""


class LinkWait:
    """Wait of one start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since = 0.0
        self.waits_for: str | None = None
        """Description of the missing links, once the first check found some."""

    def begin(self, now: float) -> None:
        """All parts are prepared and have received the addresses of their peers."""
        self._since = now

    def next_check(self, now: float) -> float:
        """Return the time of the next call of :meth:`check`."""
        return now + min(self._settings.link_timeout / 2, MAX_CHECK_INTERVAL)

    def check(self, links: Links, now: float, *, allow_unlinked: bool) -> bool:
        """Return whether there is time left for the missing links."""
        slow = links.only_slow and not allow_unlinked
        limit = self._settings.slow_link_timeout if slow else self._settings.link_timeout
        waits = now - self._since < limit - CLOCK_PRECISION
        self.waits_for = f"links: {links.pending()}" if waits else None
        return waits

    def end(self) -> None:
        self.waits_for = None
