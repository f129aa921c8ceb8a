"""Directories of runners: numbered, locked, with an index; made, swept and removed here.

Each runner has ``ROOT/<number>/`` (mode 0700; numbers, because names of sockets end at 104 bytes):

    lock         locked (flock) as long as the runner lives
    index.json   which dataflow, which nodes, which process: see IndexEntry
    groups       a line for each session that was started, and the mark (see ``guardian``)
    n, c, i      sockets for nodes, for daemons, and for inspectors (see ``inspection``)
    packages/    what is put in front of the nodes' PYTHONPATH
    plan.json    the RunPlan, for a runner that a daemon starts
    runner.log   its stdout and stderr
    result.json  how the dataflow ended, until it is acknowledged

A start removes the directories whose owner is gone, after it has killed what they started. Those
with a result stay until the result is acknowledged (or is a month old).
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dora_config.file_ages import last_change
from dora_config.process_identity import boot_id, is_alive, start_time
from dora_daemon.runner.errors import RunnerError
from dora_daemon.runner.process.reaper import (
    GROUPS,
    RESULT,
    clear_directory,
    kill_recorded,
    remove_directory,
)

NODE_SOCKET = "n"
INSPECTION_SOCKET = "i"
KEEP_RESULT = 30 * 24 * 3600.0
"""Seconds after which a result that nobody fetched is removed."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """``index.json``: enough to find a node's runner, and to adopt the runner."""

    dataflow_id: str
    name: str | None
    nodes: tuple[str, ...]
    dynamic_nodes: tuple[str, ...]
    pid: int
    start_time: int
    boot_id: str
    foreground: bool
    """A ``dora run``: nobody adopts it."""
    machine_id: str | None = None
    socket: str = NODE_SOCKET
    control: str = "c"
    version: str = ""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> IndexEntry:
        """An entry from JSON, unknown keys ignored. Raises KeyError and TypeError."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        known["nodes"] = tuple(values["nodes"])
        known["dynamic_nodes"] = tuple(values["dynamic_nodes"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class FoundRunner:
    """A runtime directory on disk. ``alive``: its runner runs."""

    path: Path
    entry: IndexEntry
    alive: bool
    has_result: bool


def runtime_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Where runtime directories lie: the service's, else in the user's state directory.

    Absolute, as nodes look from directories of their own.
    """
    if given := environ.get("RUNTIME_DIRECTORY"):
        # systemd separates several with colons.
        return Path(given.split(":")[0]).absolute()
    state = environ.get("XDG_STATE_HOME") or ""
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return (base / "dora" / "run").absolute()


def lock(path: Path, *, wait: bool = False) -> int | None:
    """An open, locked file; ``None`` if somebody else holds the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _root_locked(root: Path) -> Iterator[None]:
    """One start or sweep at a time, so that a directory is never seen without its lock."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = lock(root / ".lock", wait=True)
    except OSError as error:
        raise RunnerError(
            f"cannot use the runtime directory {root}: {error.strerror}; {_of_another(root)}set"
            " XDG_STATE_HOME to a directory that you may write to"
        ) from error
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)


def _of_another(root: Path) -> str:
    """Whose a directory is, and what helps, if it is somebody else's."""
    with suppress(OSError, KeyError):
        if root.stat().st_uid != os.getuid():
            return (
                f"it belongs to {root.owner()}, as after a dora under sudo that kept HOME: give it"
                f" back (`sudo chown -R $USER {shlex.quote(str(root))}`), or "
            )
    return ""


class RuntimeDir:
    """A directory that this process owns (holds the lock of)."""

    def __init__(self, path: Path, lock_descriptor: int) -> None:
        self.path = path
        self.lock_descriptor = lock_descriptor
        self._groups: int | None = None

    @classmethod
    def create(cls, root: Path) -> RuntimeDir:
        """A new directory below ``root``, after directories without an owner were swept."""
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
            descriptor = lock(path / "lock")
            assert descriptor is not None
            return cls(path, descriptor)

    @classmethod
    def take_over(cls, path: Path, lock_descriptor: int | None = None) -> RuntimeDir:
        """A directory made by somebody else, who handed on the locked file or let go of it."""
        descriptor = lock_descriptor if lock_descriptor is not None else lock(path / "lock")
        if descriptor is None:
            raise RunnerError(f"{path} belongs to a runner that lives")
        os.set_inheritable(descriptor, False)
        return cls(path, descriptor)

    def write_index(self, entry: IndexEntry) -> None:
        """Replace ``index.json`` as a whole."""
        self.write("index.json", json.dumps(asdict(entry)))

    def write(self, name: str, text: str) -> None:
        """Replace a file as a whole: readers see the old or the new one."""
        temporary = self.path / f".{name}.new"
        temporary.touch(mode=0o600)
        temporary.write_text(text)
        temporary.replace(self.path / name)

    def record_process(self, pid: int) -> int:
        """Note a session leader for whoever cleans up after us; returns its start time."""
        started = start_time(pid) or 0
        self._note(f"{pid} {started}")
        return started

    def record_mark(self, mark: str) -> None:
        """Note a word in the environment of all that we start and of what that starts."""
        self._note(f"mark {mark}")

    def _note(self, line: str) -> None:
        if self._groups is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._groups = os.open(self.path / GROUPS, flags, 0o600)
        os.write(self._groups, f"{line}\n".encode())

    def forget_result(self) -> None:
        """The result is stored elsewhere: nothing of this directory is to be kept."""
        (self.path / RESULT).unlink(missing_ok=True)

    def release(self, *, keep: bool = False) -> None:
        """Give up the directory: remove it, or (``keep``) leave its result, and unlock."""
        if self._groups is not None:
            os.close(self._groups)
            self._groups = None
        if not keep:
            self.forget_result()
        clear_directory(str(self.path))
        os.close(self.lock_descriptor)


def own_identity() -> tuple[int, int, str]:
    """Pid, start time and boot id of this process."""
    return os.getpid(), start_time(os.getpid()) or 0, boot_id()


def read_entry(path: Path) -> IndexEntry | None:
    """What a directory's index says; ``None`` if there is none that can be read."""
    try:
        return IndexEntry.from_json(json.loads((path / "index.json").read_text()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _numbered(root: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(
            (p for p in root.iterdir() if p.name.isdigit() and p.is_dir()),
            key=lambda p: int(p.name),
        )
    return []


def list_runners(root: Path) -> list[FoundRunner]:
    """Every runner with an index below ``root``, alive or only remembered by its result."""
    boot = boot_id()
    found = []
    for path in _numbered(root):
        if (entry := read_entry(path)) is not None:
            same_boot = not boot or entry.boot_id == boot
            alive = same_boot and is_alive(entry.pid, entry.start_time)
            found.append(FoundRunner(path, entry, alive, (path / RESULT).exists()))
    return found


def sweep(root: Path) -> list[Path]:
    """Remove what runners that are gone left behind; returns the directories removed."""
    if not root.is_dir():
        return []
    with _root_locked(root):
        return _sweep(root)


def _sweep(root: Path) -> list[Path]:
    removed = []
    boot = boot_id()
    for path in _numbered(root):
        try:
            descriptor = lock(path / "lock")
        except OSError:
            continue
        if descriptor is None:
            continue
        try:
            entry = read_entry(path)
            if entry is None or entry.boot_id == boot:
                kill_recorded(str(path))
            if not _result_waits(path):
                remove_directory(str(path))
                removed.append(path)
            else:
                clear_directory(str(path))
        finally:
            os.close(descriptor)
    return removed


def _result_waits(path: Path) -> bool:
    with suppress(OSError):
        now = time.time()
        return now - last_change(path / RESULT, now) < KEEP_RESULT
    return False


def acknowledge(path: Path) -> None:
    """Remove the directory of a runner that has ended and whose result is stored elsewhere."""
    with _root_locked(path.parent):
        with suppress(OSError):
            descriptor = lock(path / "lock")
            if descriptor is None:
                raise RunnerError(f"the runner of {path} still runs; ask it to acknowledge")
            os.close(descriptor)
        remove_directory(str(path))
