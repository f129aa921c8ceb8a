"""Which nodes cannot run and which inputs have timed out, from samples taken now; pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """What the kernel reports about one process."""

    schedulable: bool
    """Runs, or waits for something that it could be woken by; not stopped, frozen or in the
    uninterruptible sleep of a stuck driver or file system."""
    cpu_seconds: float


@dataclass(slots=True)
class HealthWatch:
    """Seconds since each node's process was last able to run.

    A node that computes or waits makes no calls into the library for as long as it likes, so calls
    do not count. A process in uninterruptible sleep counts as able if it used CPU time meanwhile:
    heavy input and output looks like that at most moments.
    """

    _last: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    """By node: process, CPU seconds, and when it was last able to run."""

    def look(
        self, node: str, pid: int, sample: ProcessSample, *, connected_at: float, now: float
    ) -> float:
        """Seconds for which the process could not run, as far as the samples show."""
        known = self._last.get(node)
        if known is None or known[0] != pid:
            known = (pid, sample.cpu_seconds, connected_at)
        _, cpu_seconds, able_at = known
        if sample.schedulable or sample.cpu_seconds > cpu_seconds:
            able_at = now
        able_at = max(able_at, connected_at)
        self._last[node] = (pid, sample.cpu_seconds, able_at)
        return now - able_at


@dataclass(slots=True)
class InputWatch:
    """Inputs with an ``input_timeout``: armed by their first message, broken by silence."""

    broken: dict[str, set[str]] = field(default_factory=dict)
    timeouts: dict[str, int] = field(default_factory=dict)
    recoveries: dict[str, int] = field(default_factory=dict)

    def look(
        self, node: str, input_id: str, *, last_arrival: float, timeout: float, now: float
    ) -> None:
        """Judge one input; ``last_arrival`` 0 means that nothing came yet."""
        broken = self.broken.setdefault(node, set())
        silent = last_arrival > 0 and now - last_arrival > timeout
        if silent and input_id not in broken:
            broken.add(input_id)
            self.timeouts[node] = self.timeouts.get(node, 0) + 1
        elif not silent and input_id in broken:
            broken.discard(input_id)
            self.recoveries[node] = self.recoveries.get(node, 0) + 1

    def closed(self, node: str, input_id: str) -> None:
        """An input that ended for good is not broken."""
        self.broken.get(node, set()).discard(input_id)
