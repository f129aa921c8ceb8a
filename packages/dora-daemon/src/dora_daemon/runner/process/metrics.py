"""CPU and memory of node processes and their children, sampled on request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OLDEST = 1.0
"""Seconds for which a sample is reused."""


@dataclass(frozen=True, slots=True)
class ProcessLoad:
    """``cpu_percent`` of one core since the last sample; CPU seconds since the start; bytes."""

    cpu_percent: float | None
    cpu_seconds: float
    memory_bytes: int
    read_bytes: int | None
    written_bytes: int | None


class Metrics:
    """Samples process trees on request only, so that it costs nothing otherwise."""

    def __init__(self) -> None:
        self._cpu: dict[str, tuple[int, float, float]] = {}
        self._loads: dict[str, ProcessLoad] = {}
        self._taken = float("-inf")

    def sample(self, pids: Mapping[str, int], now: float) -> Mapping[str, ProcessLoad]:
        """Return the load of each node's process tree, at most OLDEST seconds old."""
        if now - self._taken >= OLDEST:
            self._taken = now
            loads = {node: self._load(node, pid, now) for node, pid in pids.items()}
            self._loads = {node: load for node, load in loads.items() if load is not None}
            self._cpu = {n: v for n, v in self._cpu.items() if n in pids}
        return self._loads

    def _load(self, node: str, pid: int, now: float) -> ProcessLoad | None:
        import psutil

        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
        except (psutil.Error, OSError, RuntimeError):  # no free descriptor, or it ends just now
            return None
        cpu, memory, read, written = 0.0, 0, 0, 0
        for process in tree:
            try:
                with process.oneshot():
                    # Those of ended children are included, so that the sum does not decrease.
                    cpu += sum(process.cpu_times()[:4])
                    memory += process.memory_info().rss
                    io = process.io_counters()
            except (psutil.Error, OSError, RuntimeError, AttributeError):
                # as above; some systems have no counters
                continue
            read += io.read_bytes
            written += io.write_bytes
        before = self._cpu.get(node)
        self._cpu[node] = (pid, cpu, now)
        percent = None
        if before is not None and before[0] == pid and now > before[2]:
            percent = max(0.0, 100.0 * (cpu - before[1]) / (now - before[2]))
        return ProcessLoad(percent, cpu, memory, read, written)
