"""State directory of a daemon: its lock, its identity, and one record per part."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dora_config.access import private_dir, state_dir, write_private
from dora_config.errors import DoraError
from dora_daemon.process_tree import runtime_dir

if TYPE_CHECKING:
    from dora_daemon.agent.records import PartRecord

DEFAULT_LISTEN_PORT = 53291
"""Distinguishes daemons of one machine, and dynamic nodes can select dataflows by it. No daemon
listens on this port."""

LOCK_TIMEOUT = 2.0
"""Seconds for an earlier daemon with the same name to end."""


class DaemonStateError(DoraError):
    """The state directory of the daemon cannot be used."""


def state_directory(machine_id: str | None, listen_port: int) -> Path:
    """Return the state directory of a daemon of this account."""
    name = machine_id or ""
    # A machine id cannot contain `@`, so it differs from the name of the default daemon.
    if not name or listen_port != DEFAULT_LISTEN_PORT:
        name = f"{name}@{listen_port}"
    return state_dir() / "daemon" / name


def is_running(directory: Path) -> bool:
    """Return whether a daemon has locked its state directory.

    Raises OSError if the directory cannot be read.
    """
    try:
        lock = os.open(directory / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


class DaemonFiles:
    """State directory, locked while the process runs:

    lock             locked (flock); contains the process id
    instance         UUID of this daemon
    parts/UUID.json  the PartRecord of a dataflow
    """

    def __init__(self, directory: Path) -> None:
        """Create and lock ``directory``; raise :class:`DaemonStateError` when it is in use."""
        private_dir(directory.parent)
        self.directory = private_dir(directory)
        self._parts = private_dir(directory / "parts")
        self._lock = self._locked(within=LOCK_TIMEOUT)
        self.instance = self._read_instance()

    def were_removed(self) -> bool:
        """Whether the directory or its contents have been removed."""
        return not (self.directory / "instance").exists()

    def restore(self, records: Iterable[PartRecord]) -> None:
        """Create removed files again. Raises OSError and DaemonStateError."""
        for folder in (self.directory, self._parts):
            private_dir(folder)
        old, self._lock = self._lock, self._locked(within=0)
        os.close(old)
        for record in records:
            self.save(record)
        write_private(self.directory / "instance", self.instance.encode())

    def _locked(self, *, within: float) -> int:
        path = self.directory / "lock"
        deadline = time.monotonic() + within
        while (lock := runtime_dir.lock(path)) is None:
            if time.monotonic() > deadline:
                owner = path.read_text(errors="replace").strip() or "unknown"
                raise DaemonStateError(
                    "a daemon with this name already runs on this machine (process "
                    f"{owner}); start a second one with another --machine-id or another "
                    "--local-listen-port"
                )
            time.sleep(0.05)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _read_instance(self) -> str:
        path = self.directory / "instance"
        try:
            return str(uuid.UUID(path.read_text().strip()))
        except (FileNotFoundError, ValueError):
            created = str(uuid.uuid4())
            write_private(path, created.encode())
            return created

    def load(self) -> tuple[list[PartRecord], list[str]]:
        """Return all records, and a sentence about each unreadable file, which is renamed."""
        from dora_daemon.agent.records import PartRecord  # commands import this module

        records, problems = [], []
        for path in sorted(self._parts.glob("*.json")):
            try:
                records.append(PartRecord.model_validate_json(path.read_bytes()))
            except ValueError:
                moved = path.replace(path.with_suffix(".unreadable"))
                problems.append(f"{path}: not a record of this version; moved to {moved.name}")
        return records, problems

    def save(self, record: PartRecord) -> None:
        """Replace the record of a part atomically."""
        write_private(self._path(record.dataflow_id), record.model_dump_json().encode())

    def drop(self, dataflow_id: str) -> None:
        self._path(dataflow_id).unlink(missing_ok=True)

    def _path(self, dataflow_id: str) -> Path:
        return self._parts / f"{uuid.UUID(dataflow_id)}.json"

    def close(self) -> None:
        """Release the lock."""
        os.close(self._lock)
