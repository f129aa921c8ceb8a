"""Delays between attempts, and the end of the attempts; pure.

Nodes, links, parts, repairs and roll-outs differ only in the numbers of their policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_MAX_DOUBLINGS = 16
"""Limit of the exponent, so that no number overflows."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Numbers of one kind of retry. Times in seconds."""

    first: float = 1.0
    """Delay after the first failure; it doubles with each further one."""
    longest: float | None = None
    """Longest delay."""
    limit: int = 0
    """Failures after which the next one is final; 0: no limit."""
    window: float | None = None
    """Time since the first failure after which they are counted from 0 again."""
    stable: float | None = None
    """Seconds of success after which failures are counted from 0 again."""

    def delay(self, failures: int) -> float:
        """Return the delay after this number of earlier failures."""
        delay = self.first * 2.0 ** min(failures, _MAX_DOUBLINGS)
        return delay if self.longest is None else min(delay, self.longest)


@dataclass(slots=True)
class Retry:
    """Counter of one operation's failures. ``now``: seconds of any clock."""

    failures: int = 0
    _first: float = 0.0
    """Time of the first counted failure."""
    _last: float = float("-inf")
    _due: float = float("-inf")

    def failed(self, policy: RetryPolicy, now: float, held: float | None = None) -> float:
        """Count a failure; return the seconds until the next attempt (infinite: give up).

        ``held``: seconds since the last attempt; None: since the last failure.
        """
        held = now - self._last if held is None else held
        is_past = policy.window is not None and now - self._first > policy.window
        if is_past or (policy.stable is not None and held >= policy.stable):
            self.failures = 0
        if policy.limit and self.failures >= policy.limit:
            return math.inf
        if self.failures == 0:
            self._first = now
        delay = policy.delay(self.failures)
        self.failures += 1
        self._last, self._due = now, now + delay
        return delay

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt."""
        return max(0.0, self._due - now)

    def reset(self) -> None:
        """Allow the next attempt at once, and count failures from 0 again."""
        self.failures, self._due = 0, float("-inf")
