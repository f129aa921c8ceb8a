"""Store of dataflow records: in memory, or durable in a SQLite file.

A file opens with any minor version of its major version (a rollback reads files of the next one);
a file of another major version is refused. See `store_format` for the format.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from dora_config.access import private_dir
from dora_config.errors import DoraError
from dora_coordinator.io import store_format
from dora_coordinator.io.store_format import (
    SCHEMA_VERSION,
    UnreadableRecord,
    Version,
)
from dora_coordinator.state import commands as do
from dora_coordinator.state.events import StoreLoaded

logger = logging.getLogger("dora.coordinator")
T = TypeVar("T")
_DURABLE = "PRAGMA synchronous=FULL"


class StoreError(DoraError):
    """The store cannot be used; ``str()`` contains the remedy."""


class NotWritten(StoreError):
    """None of the changes was written; a later attempt may succeed."""


class MemoryStore:
    """Stores nothing: the records live in the state machine only."""

    name = "memory"

    def load(self) -> StoreLoaded:
        return StoreLoaded()

    def apply(self, changes: Sequence[do.Change]) -> None:
        pass

    def number(self) -> int:
        return 0

    def copy(self) -> tuple[int, bytes]:
        return 0, b""

    def close(self) -> None:
        pass


class SqliteStore:
    """One file for one coordinator at a time; usable from any thread."""

    def __init__(self, path: Path, *, version: Version = SCHEMA_VERSION) -> None:
        """Open or create ``path``; raises :class:`StoreError`."""
        self.name = str(path)
        self._path = path
        self._turn = threading.Lock()
        try:
            if not path.parent.is_dir():
                private_dir(path.parent)
            self._lock = _lock(path)
        except OSError as error:
            raise StoreError(
                f"{path}: the store cannot be opened ({error.strerror}); choose another path with "
                "--store redb:PATH"
            ) from error
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = self._open()
            try:
                self._db.execute(_DURABLE)
                self._prepare(version)
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            disk_error = isinstance(error, sqlite3.OperationalError | OSError)
            remedy = (
                "make room, or choose another path with --store redb:PATH"
                if disk_error
                else "start with --recreate-store to put it aside and begin an empty one"
            )
            raise StoreError(f"{path}: the store cannot be opened ({error}); {remedy}") from error
        except BaseException:
            os.close(self._lock)
            raise

    def _prepare(self, version: Version) -> None:
        found = store_format.read_version(self._db)
        if found is not None and found[0] != version[0]:
            raise StoreError(
                f"{self._path}: store version {found[0]}.{found[1]}, this version of dora "
                f"reads {version[0]}.x; use the version of dora that wrote it, or start with "
                "--recreate-store to put it aside"
            )
        self._db.execute("PRAGMA journal_mode=WAL")
        store_format.create_tables(self._db)
        if found is None or found < version:
            store_format.write_version(self._db, version)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if not self._path.exists():
            self._recreate()
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # some errors have ended the transaction
                self._db.execute("ROLLBACK")
            raise

    def load(self) -> StoreLoaded:
        """Return the whole content; raises :class:`StoreError`."""
        return self._read(store_format.read_all)

    def number(self) -> int:
        """Return how many changes were written; 0: the store cannot be copied."""
        return self._read(store_format.read_number)

    def copy(self) -> tuple[int, bytes]:
        """Return the number of changes, and the content as a file; raises :class:`StoreError`."""
        return self._read(lambda db: (store_format.read_number(db), db.serialize()))

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._turn:
                return read(self._db)
        except UnreadableRecord as error:
            raise StoreError(
                f"{self._path}: the record of {error.what} cannot be read "
                f"({error}); start with --recreate-store to put the store aside"
            ) from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: cannot be read ({error})") from error

    def apply(self, changes: Sequence[do.Change]) -> None:
        """Write all changes, in their order, in one transaction; raises :class:`NotWritten`."""
        try:
            with self._turn, self._transaction():
                for change in changes:
                    match change:
                        case do.SaveRecord():
                            store_format.save(self._db, change)
                        case do.DeleteRecord():
                            store_format.delete(self._db, change)
                        case do.SaveMachine():
                            store_format.save_machine(self._db, change)
                        case do.SaveFleet():
                            store_format.save_fleet(self._db, change)
                store_format.count_change(self._db)
        except (sqlite3.Error, OSError) as error:
            raise NotWritten(
                f"{self._path}: cannot be written ({error}); make room. Until then running nodes "
                "continue, and nothing is started, stopped or taken over"
            ) from error

    def _recreate(self) -> None:
        """Write the removed file again from the one that is still open.

        The open one stays open until the copy can replace it, so that a step that fails can be
        tried again. It is closed before the copy is first read: closing removes the log beside it.
        """
        if not self._path.parent.is_dir():
            private_dir(self._path.parent)
        if not self._is_locked():
            lock = _lock(self._path)
            os.close(self._lock)
            self._lock = lock
        copy = self._path.with_name(f"{self._path.name}.copy")
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(copy)) as db:
            self._db.backup(db)
        for stale in ("-wal", "-shm"):
            self._path.with_name(f"{self._path.name}{stale}").unlink(missing_ok=True)
        copy.replace(self._path)
        try:
            new = self._open()
        except BaseException:
            self._path.replace(copy)
            raise
        self._db.close()
        self._db = new
        self._db.execute(_DURABLE)
        logger.warning("recreated %s: the file had been removed", self._path)

    def _is_locked(self) -> bool:
        """Whether the lock file that others find is the one that is locked."""
        try:
            found = _lock_path(self._path).stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._lock))

    def _open(self) -> sqlite3.Connection:
        """Open the file without reading it."""
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)


Store = MemoryStore | SqliteStore


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _lock(path: Path) -> int:
    handle = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise StoreError(
            f"{path}: in use by another coordinator (process {owner}); stop that one, or choose "
            "another store: --store redb:PATH or --store memory"
        ) from None
    except OSError:
        os.close(handle)
        raise
    return handle


def open_store(text: str, default: Path, *, recreate: bool = False) -> Store:
    """Open the store that ``--store`` gives: ``redb``, ``redb:PATH`` or ``memory``.

    ``redb`` is the name that existing deployments use for the durable store; ``sqlite`` is an
    alias.
    """
    kind, colon, path = text.partition(":")
    if text == "memory":
        return MemoryStore()
    if kind not in ("redb", "sqlite") or (colon and not path):
        raise StoreError(f'--store "{text}": expected redb, redb:PATH or memory')
    try:
        file = Path(path).expanduser().absolute() if path else default
    except RuntimeError as error:
        raise StoreError(f'--store "{text}": {error}; write the path in full') from error
    if file.is_dir():
        raise StoreError(f"--store {text}: {file} is a directory; expected the path of a file")
    if recreate and file.exists():
        _put_aside(file)
    return SqliteStore(file)


def _put_aside(file: Path) -> None:
    """Rename the store to `.old`, together with the log that a killed coordinator left."""
    os.close(_lock(file))
    old = file.with_name(f"{file.name}.old")
    for stale in (f"{old.name}-wal", f"{old.name}-shm", f"{file.name}-shm"):
        file.with_name(stale).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        file.with_name(f"{file.name}-wal").replace(old.with_name(f"{old.name}-wal"))
    file.replace(old)
