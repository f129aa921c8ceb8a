"""The cgroups that limit this process."""

from __future__ import annotations

import contextlib

ROOT = "/sys/fs/cgroup"


def own_groups(controller: str = "") -> list[str]:
    """Return the paths of this process's cgroup and those above it, below the mount point.

    ``controller`` selects a hierarchy of cgroup v1; without it that of v2.
    """
    groups = [""]
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            if (names == "" and not controller) or controller in names.split(","):
                parts = path.strip("/").split("/")
                groups += ["/" + "/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    return groups
