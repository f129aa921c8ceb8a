"""Directories of runners and builds: numbered, locked, created and swept.

Each owner has ``ROOT/<number>/`` (mode 0700; numbers, because a socket path ends at 104 bytes):

    lock         locked (flock) while the owner runs
    owner        the token of the part, or the id of a `dora run`
    index.json   dataflow, nodes and process of the runner: see ``runner_index``
    groups       started process groups and the mark of the runner: see ``reaper``
    n            socket for nodes, links, inspectors and recorders
    c            socket for daemons
    packages/    first entry of the nodes' PYTHONPATH
    plan.json    the RunPlan
    runner.log   stdout and stderr of that runner
    result.json  the DataflowResult, until it is acknowledged

Every start kills the processes of owners that have ended and removes their directories. A directory
with a result stays until the result is acknowledged or a month old.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from dora_config.atomic_write import write_file
from dora_config.errors import DoraError
from dora_config.process_identity import boot_id, is_alive, start_time
from dora_daemon.process_tree.reaper import (
    GROUPS,
    LOCK,
    RESULT,
    clear_directory,
    group_line,
    kill_recorded,
    mark_line,
    remove_directory,
)
from dora_node_api.protocol.runner_index import INDEX, IndexEntry, encode, read_entry

PLAN = "plan.json"
KEEP_RESULT = 30 * 24 * 3600.0
"""Seconds after which a result that was not acknowledged is removed."""


class RuntimeDirError(DoraError):
    """A runtime directory cannot be created, taken over or removed."""


def runtime_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the absolute path below which runtime directories are created.

    That is the directory of the service (RUNTIME_DIRECTORY), else of the user's state.
    """
    if given := environ.get("RUNTIME_DIRECTORY"):
        # systemd separates several paths with colons
        return Path(given.split(":")[0]).absolute()
    state = environ.get("XDG_STATE_HOME") or ""
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return (base / "dora" / "run").absolute()


def lock(path: Path, *, wait: bool = False) -> int | None:
    """Open and lock a file; return None if another process holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _root_locked(root: Path) -> Iterator[None]:
    """Exclude other starts and sweeps, so that they find no new directory without its lock."""
    try:
        descriptor = _lock_root(root)
    except OSError as error:
        raise RuntimeDirError(
            f"cannot use the runtime directory {root}: {error.strerror}; {_wrong_owner(root)}set"
            " XDG_STATE_HOME to a directory that you may write to"
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


def _lock_root(root: Path) -> int:
    """Create and lock the folder; repeat that if `dora cluster down` removed it meanwhile."""
    path = root / ".lock"
    while True:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            descriptor = lock(path, wait=True)
            assert descriptor is not None
            try:
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            except FileNotFoundError:
                pass
            os.close(descriptor)


def _wrong_owner(root: Path) -> str:
    """Return owner and remedy if the directory belongs to another user, else an empty text."""
    with suppress(OSError, KeyError):
        if root.stat().st_uid != os.getuid():
            return (
                f"it belongs to {root.owner()}, as after a dora under sudo that kept HOME: give it"
                f" back (`sudo chown -R $USER {shlex.quote(str(root))}`), or "
            )
    return ""


class RuntimeDir:
    """A directory whose lock this process holds."""

    def __init__(self, path: Path, lock_descriptor: int) -> None:
        self.path = path
        self.lock_descriptor = lock_descriptor
        self._groups: int | None = None

    @classmethod
    def create(cls, root: Path) -> RuntimeDir:
        """Sweep directories without an owner, then create a new one below ``root``."""
        with _root_locked(root):
            _sweep(root)
            number = 0
            while True:
                path = root / str(number)
                try:
                    path.mkdir(mode=0o700)
                    break
                except FileExistsError:
                    number += 1
            descriptor = lock(path / LOCK)
            assert descriptor is not None
            return cls(path, descriptor)

    @classmethod
    def take_over(cls, path: Path, lock_descriptor: int | None = None) -> RuntimeDir:
        """Return a directory of another process, which has unlocked it or passed on its lock."""
        descriptor = lock_descriptor if lock_descriptor is not None else lock(path / LOCK)
        if descriptor is None:
            raise RuntimeDirError(f"{path} is in use by a running process")
        os.set_inheritable(descriptor, False)
        return cls(path, descriptor)

    def write_index(self, entry: IndexEntry) -> None:
        """Replace ``index.json`` atomically."""
        self.write(INDEX, encode(entry))

    def write(self, name: str, text: str) -> None:
        """Replace a file atomically: readers see the old or the new content."""
        write_file(self.path / name, text, mode=0o600)

    def record_process(self, pid: int) -> int:
        """Record a group leader to be killed if this process is killed; return its start time."""
        started = start_time(pid) or 0
        self._record(group_line(pid, started))
        return started

    def record_mark(self, mark: str) -> None:
        """Record the text that marks the environment of every started process."""
        self._record(mark_line(mark))

    def _record(self, line: str) -> None:
        if self._groups is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._groups = os.open(self.path / GROUPS, flags, 0o600)
        os.write(self._groups, line.encode())

    def forget_result(self) -> None:
        """Remove the result, which is stored elsewhere."""
        (self.path / RESULT).unlink(missing_ok=True)

    def release(self, *, keep: bool = False) -> None:
        """Remove the directory, except a result and its files with ``keep``; then unlock it."""
        if self._groups is not None:
            os.close(self._groups)
            self._groups = None
        if not keep:
            self.forget_result()
        clear_directory(str(self.path))
        os.close(self.lock_descriptor)


def own_identity() -> tuple[int, int, str]:
    """Return pid, start time and boot id of this process."""
    return os.getpid(), start_time(os.getpid()) or 0, boot_id()


def _numbered(root: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(
            (p for p in root.iterdir() if p.name.isdigit() and p.is_dir()),
            key=lambda p: int(p.name),
        )
    return []


def living_runners(root: Path) -> list[tuple[Path, IndexEntry]]:
    """Return directory and index of each runner below ``root`` that runs."""
    boot = boot_id()
    return [
        (path, entry)
        for path in _numbered(root)
        if (entry := read_entry(path)) is not None
        and entry.boot_id == boot
        and is_alive(entry.pid, entry.start_time)
    ]


def sweep(root: Path) -> list[Path]:
    """Kill and remove what ended owners have left; return the removed directories."""
    if not root.is_dir():
        return []
    with _root_locked(root):
        return _sweep(root)


def _sweep(root: Path) -> list[Path]:
    removed = []
    boot = boot_id()
    for path in _numbered(root):
        try:
            descriptor = lock(path / LOCK)
        except OSError:
            continue
        if descriptor is None:
            continue
        try:
            entry = read_entry(path)
            if entry is None or entry.boot_id == boot:
                kill_recorded(str(path))
            if _keeps_result(path):
                clear_directory(str(path))
            else:
                remove_directory(str(path))
                removed.append(path)
        finally:
            os.close(descriptor)
    return removed


def _keeps_result(path: Path) -> bool:
    with suppress(OSError):
        return time.time() - (path / RESULT).stat().st_mtime < KEEP_RESULT
    return False
