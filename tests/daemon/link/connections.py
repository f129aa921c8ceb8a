"""TCP connections of a link process, which a test can break."""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

_PIDFD_GETFD = 438
"""Number of the system call, the same on every architecture."""


def connections(pid: int, ports: range) -> Iterator[socket.socket]:
    """Yield a process's established TCP connections from or to one of these ports."""
    process = os.pidfd_open(pid)
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if not str(entry.readlink()).startswith("socket:"):
                    continue
            descriptor = ctypes.CDLL(None).syscall(_PIDFD_GETFD, process, int(entry.name), 0)
            if descriptor < 0:
                continue
            with suppress(OSError), closing(socket.socket(fileno=descriptor)) as found:
                if found.family != socket.AF_INET or found.type != socket.SOCK_STREAM:
                    continue
                if {found.getsockname()[1], found.getpeername()[1]} & {*ports}:
                    yield found
    finally:
        os.close(process)


def count(pid: int, ports: range) -> int:
    """Return the number of such connections."""
    return sum(1 for _ in connections(pid, ports))


def break_all(pid: int, ports: range) -> int:
    """Shut such connections down; return how many."""
    broken = 0
    for connection in connections(pid, ports):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
            broken += 1
    return broken
