"""Delay between attempts to spawn a part again: the first is immediate; pure."""

from __future__ import annotations


class Backoff:
    """Time of the last attempt by dataflow and daemon, until it is cleared."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._last: dict[str, dict[str, float]] = {}

    def wait(self, daemon: str, dataflow_id: str, now: float) -> float:
        """Return the seconds until the next attempt is allowed."""
        last = self._last.get(dataflow_id, {}).get(daemon)
        return 0.0 if last is None else max(0.0, last + self._delay - now)

    def attempted(self, daemon: str, dataflow_id: str, now: float) -> None:
        self._last.setdefault(dataflow_id, {})[daemon] = now

    def clear(self, daemon: str, dataflow_id: str) -> None:
        self._last.get(dataflow_id, {}).pop(daemon, None)

    def forget(self, dataflow_id: str) -> None:
        """Clear all attempts of a dataflow."""
        self._last.pop(dataflow_id, None)
