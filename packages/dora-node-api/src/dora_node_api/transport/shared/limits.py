"""The processors and the memory that this process may use: the machine's, or its cgroup's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

ROOT = "/sys/fs/cgroup"


def usable_cores() -> float:
    """Return the processors by affinity or by the cgroup's quota, the lower; may be 1.5."""
    settings = [*_settings("cpu.max")]
    for mount in ("/cpu", "/cpu,cpuacct"):  # version 1 has quota and period in files of their own
        quotas = _settings("cpu.cfs_quota_us", "cpu", mount)
        periods = _settings("cpu.cfs_period_us", "cpu", mount)
        settings += [f"{quota} {period}" for quota, period in zip(quotas, periods, strict=False)]
    limits = [limit for text in settings if (limit := parse_quota(text)) is not None]
    return min([len(os.sched_getaffinity(0)), *limits])


def parse_quota(text: str) -> float | None:
    """Return the processors that a quota and period (in us) allow; None: no limit."""
    try:
        quota, period = text.split()
        limit = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return limit if limit > 0 else None


def usable_memory() -> int:
    """Return the bytes of memory of the machine or by the cgroup's limit, the lower."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for text in (
        *_settings("memory.max"),
        *_settings("memory.limit_in_bytes", "memory", "/memory"),
    ):
        with contextlib.suppress(ValueError):
            limits.append(int(text))
    return min(limits)


def _settings(name: str, controller: str = "", mount: str = "") -> Iterator[str]:
    """Yield a setting of the cgroup of this process and of those above it.

    ``controller`` and ``mount`` select a hierarchy of version 1; without them that of version 2.
    """
    for group in own_groups(controller):
        path = f"{ROOT}{mount}{group}/{name}"
        with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            yield file.read()


def own_groups(controller: str) -> list[str]:
    """Return the paths of this process's cgroup and those above it, below the mount point."""
    groups = [""]
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            if (names == "" and not controller) or controller in names.split(","):
                parts = path.strip("/").split("/")
                groups += ["/" + "/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return groups
