"""Kills by the kernel for lack of memory, counted by the cgroup of this process.

The kernel only reports a count: a process that ended by SIGKILL just after the count went up is
taken for the one that was killed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dora_daemon.runner.machine.events import Exit
from dora_node_api.frozen import replace

KILLED: Final = 137
"""Exit code by which a shell reports that its command ended by SIGKILL."""
RECENT: Final = 5.0
"""Seconds for which a kill waits for the process that it ended."""


class MemoryKills:
    """Reads the counter on request; supports cgroup v2 and v1, and systems without cgroups."""

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._files = _counters(proc, cgroups)
        self._counted = self._read()
        self._unclaimed = 0
        self._last = float("-inf")

    def look(self, now: float) -> None:
        """Count kills since the last call; ``now`` in seconds."""
        counted = self._read()
        if counted > self._counted:
            self._unclaimed += counted - self._counted
            self._last = now
        elif now - self._last > RECENT:
            self._unclaimed = 0
        self._counted = counted

    def explain(self, status: Exit, now: float) -> Exit:
        """Return the exit of a process with whether it was killed for lack of memory."""
        if status.signal != "SIGKILL" and status.code != KILLED:
            self.look(now)
            return status
        return replace(status, out_of_memory=self.claim(now))

    def claim(self, now: float) -> bool:
        """Return whether a process that just ended by SIGKILL was killed for lack of memory."""
        self.look(now)
        if self._unclaimed == 0 or now - self._last > RECENT:
            return False
        self._unclaimed -= 1
        return True

    def _read(self) -> int:
        for path in self._files:
            try:
                lines = path.read_text().splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition(" ")
                if name == "oom_kill" and value.isdigit():
                    return int(value)
        return 0


def _counters(proc: Path, cgroups: Path) -> list[Path]:
    """Return the files with a line `oom_kill N`, the most specific first."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        inside = path.lstrip("/")
        if number == "0":
            found += [mount / inside / "memory.events" for mount in (cgroups, cgroups / "unified")]
        elif "memory" in controllers.split(","):
            found.append(cgroups / "memory" / inside / "memory.oom_control")
            # in a container, the cgroup of the container is mounted as the root
            found.append(cgroups / "memory" / "memory.oom_control")
    return [*found, proc / "vmstat"]
