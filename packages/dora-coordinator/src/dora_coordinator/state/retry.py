"""When a repair is tried again: at once, and then after growing pauses; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Retry:
    """Tries of one repair. The pauses are 1, 2, 4 ... seconds, up to a limit.

    A repair that held for as long as the limit begins anew.
    """

    tries: int = 0
    last: float = float("-inf")
    """Time of the last try."""

    def wait(self, limit: float, now: float) -> float:
        """Return the seconds until the next try."""
        if self.tries == 0:
            return 0.0
        pause = min(limit, 2.0 ** min(self.tries - 1, 30))
        return max(0.0, self.last + pause - now)

    def tried(self, limit: float, now: float) -> None:
        """Note a try."""
        if now - self.last >= 2 * limit:
            self.tries = 0
        self.tries += 1
        self.last = now

    def reset(self) -> None:
        """Let the next try follow at once."""
        self.tries = 0
