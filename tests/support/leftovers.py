"""Finds what a test left behind: processes, shared memory, runtime directories, descriptors."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from support import fork_server

TAG = "DORA_TESTS_TAG"
"""Environment variable of every process that a test has started, directly or not."""

LEFT_BY_A_TEST = "dora-test-"
"""Beginning of names in /dev/shm that tests use; the tag follows."""

_LINUX = sys.platform.startswith("linux")
_SHARED_MEMORY = Path("/dev/shm")
_HELPERS_OF_MULTIPROCESSING = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
_GRACE = 5.0
"""Seconds that a process or a thread of the test may still need to end."""


def _pids() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} if _LINUX else set()


def _shared_memory() -> set[str]:
    """Return the names in /dev/shm, without those of Zenoh and multiprocessing, which tests of
    other workers create.
    """
    if not _LINUX or not _SHARED_MEMORY.is_dir():
        return set()
    names = os.listdir(_SHARED_MEMORY)
    return {name for name in names if not name.endswith(".zenoh") and name[:7] != "sem.mp-"}


def _descriptors() -> dict[int, str]:
    """Return the pipes, sockets and memory files of the test process."""
    found: dict[int, str] = {}
    if not _LINUX:
        return found
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(("pipe:", "socket:", "/memfd:")):
                found[int(name)] = target
    found.pop(fork_server.descriptor(), None)
    return found


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return (
            Path(f"/proc/{pid}/cmdline")
            .read_bytes()
            .replace(b"\0", b" ")
            .decode(errors="replace")
            .strip()
        )
    return ""


def _state_and_parent(pid: int) -> tuple[str, int]:
    """Return the state in /proc/PID/stat and the parent's pid; ("", 0) without the process."""
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[1])
    return "", 0


def _is_mapped_by_another(name: str, tag: str) -> bool:
    """Return whether a process that no test has started maps this shared memory."""
    for pid in _pids():
        with suppress(OSError):
            if f"/dev/shm/{name}" in Path(f"/proc/{pid}/maps").read_text() and not _carries(
                pid, tag
            ):
                return pid != os.getpid()
    return False


def _carries(pid: int, tag: str) -> bool:
    with suppress(OSError):
        return f"{TAG}={tag}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


@dataclass(frozen=True)
class Before:
    """State of the machine at the start of a test; created by ``Before.now``."""

    tag: str
    pids: frozenset[int]
    shared_memory: frozenset[str]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def now(cls, tag: str) -> Before:
        return cls(
            tag=tag,
            pids=frozenset(_pids()),
            shared_memory=frozenset(_shared_memory()),
            descriptors=frozenset(_descriptors().items()),
        )

    def processes(self) -> list[int]:
        """Return the processes started since: the tagged, children of this and the fork server."""
        found = []
        server = fork_server.pid()
        for pid in _pids() - self.pids - {server}:
            state, parent = _state_and_parent(pid)
            ours = parent in (os.getpid(), server) or (state != "Z" and _carries(pid, self.tag))
            helper = any(name in _command_line(pid) for name in _HELPERS_OF_MULTIPROCESSING)
            if state and ours and not helper:
                found.append(pid)
        return sorted(found)

    def end_processes(self) -> list[str]:
        """Wait a moment for the test's processes, kill those left; return a line for each."""
        deadline = time.monotonic() + _GRACE
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        lines = []
        for pid in left:
            state, parent = _state_and_parent(pid)
            lines.append(
                f"process {pid} (state {state}, parent {parent}): "
                f"{_command_line(pid) or 'not waited for'}"
            )
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            if parent == os.getpid():
                with suppress(OSError):
                    os.waitpid(pid, 0)
        return lines

    def new_shared_memory(self) -> list[str]:
        new = _shared_memory() - self.shared_memory
        return sorted(
            f"/dev/shm/{name}"
            for name in new
            # Other workers run the tests of this function.
            if not (name.startswith(LEFT_BY_A_TEST) and not name.endswith(self.tag))
            and not _is_mapped_by_another(name, self.tag)
        )

    def new_descriptors(self) -> list[str]:
        """Wait a moment for threads that are about to end; return a line for each descriptor."""
        deadline = time.monotonic() + _GRACE
        while (
            new := set(_descriptors().items()) - self.descriptors
        ) and time.monotonic() < deadline:
            gc.collect()  # garbage in a cycle is not a leak
            time.sleep(0.02)
        return sorted(f"descriptor {fd}: {target}" for fd, target in new)


def runtime_files(home: Path) -> list[str]:
    """Return sockets, locks and numbered folders that a runner left under the test's home.

    Waits a moment for a reaper, whose process has no tag.
    """
    deadline = time.monotonic() + _GRACE
    while (found := _runtime_files(home)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _runtime_files(home: Path) -> list[str]:
    found = []
    for folder in (home / "state" / "dora" / "run", home / "run"):
        for parent, folders, files in os.walk(folder):
            inside = (Path(parent, name) for name in (*folders, *files))
            found += [str(path.relative_to(home)) for path in inside if _matters(path)]
    return sorted(found)


def _matters(path: Path) -> bool:
    """Return whether it is in a numbered folder; the index and its lock may stay."""
    return path.is_socket() or any(part.isdigit() for part in path.parts[-3:])
