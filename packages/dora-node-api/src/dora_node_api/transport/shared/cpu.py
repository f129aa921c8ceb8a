"""Number of processors that this process may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from dora_node_api.transport.shared.cgroups import ROOT, own_groups


def usable_cores() -> float:
    """Return the processors by affinity or by the cgroup's quota, the lower; may be 1.5."""
    return min([len(os.sched_getaffinity(0)), *_quotas()])


def parse_quota(words: list[str]) -> float | None:
    """Return the processors that a quota and period (in us) allow; None: no limit."""
    try:
        limit = int(words[0]) / int(words[1])
    except (IndexError, ValueError, ZeroDivisionError):
        return None
    return limit if limit > 0 else None


def _quotas() -> Iterator[float]:
    """Yield the limits of cgroups, of version 2 and version 1."""
    files: list[tuple[str, ...]] = [(f"{ROOT}{group}/cpu.max",) for group in own_groups()]
    for mount in ("cpu", "cpu,cpuacct"):
        paths = [f"{ROOT}/{mount}{group}/cpu.cfs_" for group in own_groups("cpu")]
        files += [(f"{path}quota_us", f"{path}period_us") for path in paths]
    for names in files:
        limit = parse_quota([word for name in names for word in _words(name)])
        if limit is not None:
            yield limit


def _words(path: str) -> list[str]:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read().split()
    return []
