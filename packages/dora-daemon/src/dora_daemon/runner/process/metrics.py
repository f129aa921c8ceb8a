"""CPU and memory of a node's process and its children, sampled on request."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# Positions in /proc/PID/stat behind the command's name, see proc_pid_stat(5).
_TIMES = slice(11, 15)
"""CPU time; that of ended children is included, so that the sum does not decrease."""
_RESIDENT_PAGES = 21
"""Field of `/proc/PID/stat`, counted from the state."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTS_CHILDREN = Path("/proc/thread-self/children").exists()
"""Whether the kernel lists the children of threads."""

SHARE_UNTIL = 1 << 30
"""Resident bytes up to which a process counts only its share of shared pages; reading that takes
longer for larger ones, because the kernel walks the whole page table."""
SHARE_FOR = 60.0
"""Seconds for which the share of shared pages is reused, unless the resident bytes change."""
MAX_SAMPLE_AGE = 1.0
"""Seconds for which a sample is reused."""


class ProcessLoad(NamedTuple):
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
        self._shares: dict[int, tuple[float, int, int]] = {}
        """Time of reading, resident bytes and the share of each process, by pid."""
        self._load: ProcessLoad | None = None
        self._taken = float("-inf")

    def sample(self, now: float) -> ProcessLoad | None:
        """Return the load, at most MAX_SAMPLE_AGE seconds old; None if it cannot be read."""
        if now - self._taken >= MAX_SAMPLE_AGE:
            self._taken = now
            self._load = self._read(now)
        return self._load

    def _read(self, now: float) -> ProcessLoad | None:
        ticks, memory, read, written = 0, 0, 0, 0
        tree = [self._pid]
        shares, self._shares = self._shares, {}
        for pid in tree:
            try:
                fields = _stat(pid)
                ticks += sum(map(int, fields[_TIMES]))
                resident = int(fields[_RESIDENT_PAGES]) * _PAGE
            except (OSError, LookupError):  # no free descriptor, or it ends just now
                if pid == self._pid:
                    return None
                continue
            since, then, share = shares.get(pid, (0.0, -1, 0))
            if resident != then or now - since > SHARE_FOR:
                since, share = now, _share(pid, resident)
            self._shares[pid] = since, resident, share
            memory += share
            with suppress(OSError):
                tree += _children(pid)
                lines = _contents(f"/proc/{pid}/io").splitlines()
                counters = dict(line.split(b": ") for line in lines)
                read += int(counters.get(b"read_bytes", 0))
                written += int(counters.get(b"write_bytes", 0))
        cpu = ticks / _TICKS
        before, self._before = self._before, (cpu, now)
        percent = None
        if before is not None and now > before[1]:
            percent = max(0.0, 100.0 * (cpu - before[0]) / (now - before[1]))
        return ProcessLoad(percent, cpu, memory, read, written)


def cpu_ticks(pid: int) -> int:
    """Return the CPU time of a process; 0 if it cannot be read."""
    with suppress(OSError):
        return sum(map(int, _stat(pid)[_TIMES]))
    return 0


def _stat(pid: int) -> list[bytes]:
    return _contents(f"/proc/{pid}/stat").rpartition(b")")[2].split()


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


def _contents(path: str) -> bytes:
    """Return the content of a short file, with half of the system calls of a file object."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 65_536)
    finally:
        os.close(file)


def _children(pid: int) -> list[int]:
    """Return the child processes, where possible without a search of all processes."""
    if not _LISTS_CHILDREN:
        import psutil

        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except (psutil.Error, RuntimeError):
            return []
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError):  # a thread that has ended
            found += map(int, _contents(f"/proc/{pid}/task/{task}/children").split())
    return found
