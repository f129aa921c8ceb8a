"""Delay between attempts to spawn a part again: the first is immediate; pure."""

from __future__ import annotations


class Backoff:
    """Time of the last attempt by daemon and dataflow, until it is cleared."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._last: dict[tuple[str, str], float] = {}

    def wait(self, daemon: str, dataflow_id: str, now: float) -> float:
        """Return the seconds until the next attempt is allowed."""
        last = self._last.get((daemon, dataflow_id))
        return 0.0 if last is None else max(0.0, last + self._delay - now)

    def attempted(self, daemon: str, dataflow_id: str, now: float) -> None:
        self._last[daemon, dataflow_id] = now

    def clear(self, daemon: str, dataflow_id: str) -> None:
        self._last.pop((daemon, dataflow_id), None)
