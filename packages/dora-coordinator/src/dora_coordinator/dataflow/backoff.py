"""When a part may be spawned again: at once, then not before the back-off has passed; pure."""

from __future__ import annotations


class Backoff:
    """Times of the last attempts by daemon and dataflow; cleared when the part runs again."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._last: dict[tuple[str, str], float] = {}

    def wait(self, daemon: str, dataflow_id: str, now: float) -> float:
        """Seconds until the part may be tried; 0 when it may be tried now."""
        last = self._last.get((daemon, dataflow_id))
        return 0.0 if last is None else max(0.0, last + self._delay - now)

    def attempted(self, daemon: str, dataflow_id: str, now: float) -> None:
        self._last[daemon, dataflow_id] = now

    def clear(self, daemon: str, dataflow_id: str) -> None:
        self._last.pop((daemon, dataflow_id), None)
