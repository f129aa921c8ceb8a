"""Identity of a process: pid and start time, valid for one boot of the machine.

A pid alone is reused after its process has ended. Standard library only.
"""

from __future__ import annotations

from pathlib import Path

# Positions in /proc/PID/stat behind the command's name, see proc_pid_stat(5).
_STATE = 0
_START_TIME = 19
"""Positions of state and start time in `/proc/PID/stat`, counted after the name."""


def boot_id() -> str:
    """Return the id of this boot; empty where the system does not provide one."""
    return _read("/proc/sys/kernel/random/boot_id").strip()


def start_time(pid: int) -> int | None:
    """Return the clock ticks from boot to the start of the process; None if it does not exist."""
    fields = _stat(pid)
    return int(fields[_START_TIME]) if fields else None


def is_alive(pid: int, started: int) -> bool:
    """Return whether the process with this pid and start time runs (zombies do not)."""
    fields = _stat(pid)
    return bool(fields) and int(fields[_START_TIME]) == started and fields[_STATE] not in "ZX"


def _stat(pid: int) -> list[str]:
    # the command's name is in parentheses and may contain spaces and parentheses
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields if len(fields) > _START_TIME else []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
