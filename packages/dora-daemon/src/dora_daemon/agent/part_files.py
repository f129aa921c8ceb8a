"""Records of parts on disk, one file each, replaced as a whole; and who this daemon is."""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from dora_config.access import private_dir
from dora_config.errors import DoraError
from dora_daemon.agent.records import PartRecord

KEPT_ENDED = 200
"""Records of ended parts that are kept, so that their logs can be found."""

LOCK_TIMEOUT = 2.0
"""Seconds for an earlier daemon of the same name to end."""


class DaemonStateError(DoraError):
    """The daemon's state directory cannot be used; ``str()`` says why and what to do."""


class DaemonFiles:
    """A daemon's state directory, locked for as long as the process lives."""

    def __init__(self, directory: Path) -> None:
        """Make and lock ``directory``; raises :class:`DaemonStateError` when it is in use."""
        private_dir(directory.parent)
        self.directory = private_dir(directory)
        self._parts = private_dir(directory / "parts")
        self._lock = self._locked(within=LOCK_TIMEOUT)
        self.instance = self._instance()

    def were_removed(self) -> bool:
        """Whether somebody has removed the directory, or what is in it."""
        return not (self.directory / "instance").exists()

    def make_again(self, records: Iterable[PartRecord]) -> None:
        """All that was there, for the next daemon. Raises OSError and DaemonStateError."""
        for folder in (self.directory, self._parts):
            private_dir(folder)
        old, self._lock = self._lock, self._locked(within=0)
        os.close(old)
        for record in records:
            self.save(record)
        replace_file(self.directory / "instance", self.instance)

    def _locked(self, *, within: float) -> int:
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(lock, within=within):
            owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise DaemonStateError(
                f"a daemon of this name runs already on this machine (process {owner}); to run a "
                "second one give it another --machine-id, or another --local-listen-port"
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        return lock

    def _instance(self) -> str:
        path = self.directory / "instance"
        try:
            return str(uuid.UUID(path.read_text().strip()))
        except (FileNotFoundError, ValueError):
            made = str(uuid.uuid4())
            replace_file(path, made)
            return made

    def load(self) -> tuple[list[PartRecord], list[str]]:
        """All records, and sentences about files that cannot be read (they are put aside)."""
        records, problems = [], []
        for path in sorted(self._parts.glob("*.json")):
            try:
                records.append(PartRecord.model_validate_json(path.read_bytes()))
            except ValidationError:
                path.replace(path.with_suffix(".unreadable"))
                problems.append(f"{path}: not a record of this version, put aside")
        ended = [record for record in records if record.forgotten]
        ended.sort(key=lambda record: record.ended_at)
        for record in ended[: max(0, len(ended) - KEPT_ENDED)]:
            self.drop(record.dataflow_id)
            records.remove(record)
        return records, problems

    def save(self, record: PartRecord) -> None:
        """Replace the record of that part; old or new, never half of it."""
        path = self._parts / f"{uuid.UUID(record.dataflow_id)}.json"
        replace_file(path, record.model_dump_json())

    def drop(self, dataflow_id: str) -> None:
        (self._parts / f"{uuid.UUID(dataflow_id)}.json").unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._lock)


def _locked(descriptor: int, *, within: float) -> bool:
    """Lock the file; a predecessor that is just ending is waited for."""
    deadline = time.monotonic() + within
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def replace_file(path: Path, text: str) -> None:
    """Old or new, never half of it; on disk when this returns. Raises OSError with ``path``."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
