"""Kills by the kernel for lack of memory, counted by the cgroup (v2) of this process.

The kernel reports a count only, so an increase is attributed to the next process that ends by
SIGKILL soon after it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dora_daemon.runner.machine.events import Exit
from dora_node_api.frozen import replace

KILLED: Final = 137
"""Exit code by which a shell reports that its command ended by SIGKILL."""
RECENT_SECONDS: Final = 5.0
"""Seconds after a kill in which the end of a process is attributed to it."""
_COUNTER: Final = "oom_kill "


class MemoryKills:
    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        try:
            lines = (proc / "self/cgroup").read_text().splitlines()
        except OSError:
            lines = []
        inside = next((line[4:] for line in lines if line.startswith("0::/")), "")
        self._file = cgroups / inside / "memory.events"
        self._counted = self._read()
        self._unclaimed = 0
        self._last = float("-inf")

    def explain(self, status: Exit, now: float) -> Exit:
        """Return the exit of a process with whether it was killed for lack of memory.

        ``now``: seconds.
        """
        counted = self._read()
        if counted > self._counted:
            self._unclaimed += counted - self._counted
            self._last = now
        elif now - self._last > RECENT_SECONDS:
            self._unclaimed = 0
        self._counted = counted
        if self._unclaimed == 0 or (status.signal != "SIGKILL" and status.code != KILLED):
            return status
        self._unclaimed -= 1
        return replace(status, out_of_memory=True)

    def _read(self) -> int:
        try:
            lines = self._file.read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line[len(_COUNTER) :]) for line in lines if line.startswith(_COUNTER))
