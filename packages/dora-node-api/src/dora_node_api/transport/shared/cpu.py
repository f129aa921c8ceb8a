"""Number of processors that this process may use."""

from __future__ import annotations

import contextlib
import os

from dora_node_api.transport.shared.cgroups import ROOT, own_groups


def usable_cores() -> float:
    """Return the processors by affinity or by the cgroup's quota, the lower; may be 1.5."""
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    else:
        cores = float(os.cpu_count() or 1)
    return min([cores, *_quotas_v2(), *_quotas_v1()])


def _read(path: str) -> list[str]:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read().split()
    return []


def parse_cpu_max(words: list[str]) -> float | None:
    """Return the processors that a `cpu.max` (quota and period in us) allows; None: no limit."""
    try:
        return int(words[0]) / int(words[1])
    except (IndexError, ValueError, ZeroDivisionError):
        return None


def _quotas_v2() -> list[float]:
    limits = (parse_cpu_max(_read(f"{ROOT}{group}/cpu.max")) for group in own_groups())
    return [limit for limit in limits if limit is not None]


def _quotas_v1() -> list[float]:
    quotas: list[float] = []
    for mount in (f"{ROOT}/cpu", f"{ROOT}/cpu,cpuacct"):
        if not os.path.isdir(mount):  # noqa: PTH112 (pathlib would cost its import at every start)
            continue
        for group in own_groups("cpu"):
            words = _read(f"{mount}{group}/cpu.cfs_quota_us")
            words += _read(f"{mount}{group}/cpu.cfs_period_us")
            limit = parse_cpu_max(words)
            if limit is not None and limit > 0:
                quotas.append(limit)
    return quotas
