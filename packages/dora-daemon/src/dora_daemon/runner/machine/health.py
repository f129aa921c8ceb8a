"""Stalled processes and timed-out inputs, decided from samples; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """State of one process as reported by the kernel."""

    schedulable: bool
    """Whether the process is neither stopped, frozen nor in uninterruptible sleep (a stuck driver).
    """
    cpu_seconds: float


@dataclass(slots=True)
class HealthWatch:
    """Measures for how long the process of a node could not run.

    A node need not call dora to count as healthy: only the kernel's process state counts. A process
    in uninterruptible sleep that used CPU time since the last sample can run: heavy input and
    output looks like that in most samples.
    """

    _last: tuple[int, float, float] | None = None
    """Process, CPU seconds, and the last time at which it could run."""

    def sample(self, pid: int, sample: ProcessSample, *, connected_at: float, now: float) -> float:
        """Add a sample; return the seconds for which the process could not run."""
        known = self._last
        if known is None or known[0] != pid:
            known = (pid, sample.cpu_seconds, connected_at)
        _, cpu_seconds, able_at = known
        if sample.schedulable or sample.cpu_seconds > cpu_seconds:
            able_at = now
        able_at = max(able_at, connected_at)
        self._last = (pid, sample.cpu_seconds, able_at)
        return now - able_at


@dataclass(slots=True)
class InputWatch:
    """Inputs with an ``input_timeout``: armed by their first message, broken by silence."""

    broken: set[str] = field(default_factory=set)
    timeouts: int = 0
    recoveries: int = 0

    def sample(
        self, input_id: str, *, last_arrival: float, timeout: float, now: float
    ) -> Literal["broken", "recovered"] | None:
        """Update one input and return what changed; ``last_arrival`` is 0 before the first
        message.
        """
        silent = last_arrival > 0 and now - last_arrival > timeout
        if silent and input_id not in self.broken:
            self.broken.add(input_id)
            self.timeouts += 1
            return "broken"
        if not silent and input_id in self.broken:
            self.broken.discard(input_id)
            self.recoveries += 1
            return "recovered"
        return None

    def closed(self, input_id: str) -> None:
        """Clear an input that has ended or was removed: it is not broken."""
        self.broken.discard(input_id)
