"""CPU and memory of a node's process and its children, sampled on request."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

SHARE_UNTIL = 1 << 30
"""Resident bytes up to which shared pages are shared out: that reads the whole page table."""
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


class LoadMeter:
    """Samples a process tree on request only, so that it costs nothing otherwise."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before: tuple[float, float] | None = None
        """CPU seconds and time of the last sample."""
        self._load: ProcessLoad | None = None
        self._taken = float("-inf")

    def sample(self, now: float) -> ProcessLoad | None:
        """Return the load, at most OLDEST seconds old; None if it cannot be read."""
        if now - self._taken >= OLDEST:
            self._taken = now
            self._load = self._read(now)
        return self._load

    def _read(self, now: float) -> ProcessLoad | None:
        import psutil

        try:
            root = psutil.Process(self._pid)
            tree = [root, *root.children(recursive=True)]
        except (psutil.Error, OSError, RuntimeError):  # no free descriptor, or it ends just now
            return None
        cpu, memory, read, written = 0.0, 0, 0, 0
        for process in tree:
            try:
                with process.oneshot():
                    # Those of ended children are included, so that the sum does not decrease.
                    cpu += sum(process.cpu_times()[:4])
                    resident = process.memory_info().rss
                    memory += _share(process.pid, resident)
                    io = process.io_counters()
            except (psutil.Error, OSError, RuntimeError, AttributeError):
                # as above; some systems have no counters
                continue
            read += io.read_bytes
            written += io.write_bytes
        before, self._before = self._before, (cpu, now)
        percent = None
        if before is not None and now > before[1]:
            percent = max(0.0, 100.0 * (cpu - before[0]) / (now - before[1]))
        return ProcessLoad(percent, cpu, memory, read, written)


def _share(pid: int, resident: int) -> int:
    """Return the memory of a process, with its share of pages that it has in common with others.

    Nodes that were forked have most of their modules in common.
    """
    if resident < SHARE_UNTIL:
        with (
            suppress(OSError, ValueError, StopIteration),
            open(f"/proc/{pid}/smaps_rollup") as file,
        ):
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
    return resident
