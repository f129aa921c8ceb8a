"""Where records of dataflows are kept: in memory, or in a SQLite file; knows nothing of their
meaning.

A store has a schema version `major.minor`. A file of an older major version is migrated after a
copy of it was kept; one of the same major version opens whatever its minor version is (a rollback
needs the next one); anything newer is refused.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from pydantic import ValidationError

from dora_config.access import private_dir
from dora_config.errors import DoraError
from dora_config.protocol.dataflow import DataflowSpec
from dora_coordinator.state.commands import DeleteRecord, SaveRecord
from dora_coordinator.state.records import DataflowRecord, PartRecord

logger = logging.getLogger("dora.coordinator")

SCHEMA_VERSION: Final = (1, 0)

Migration = Callable[[sqlite3.Connection], None]

MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""By the major version it starts from; leads to the next."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS dataflow (id TEXT PRIMARY KEY, record TEXT NOT NULL)",
    # apart, because changing a row writes all of it, and a specification can take megabytes
    "CREATE TABLE IF NOT EXISTS spec (dataflow TEXT PRIMARY KEY, spec TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS part "
    "(dataflow TEXT NOT NULL, daemon TEXT NOT NULL, record TEXT NOT NULL, "
    "PRIMARY KEY (dataflow, daemon))",
)

Stored = tuple[DataflowRecord, DataflowSpec]


class StoreError(DoraError):
    """The store cannot be used; ``str()`` says why and what to do."""


class NotWritten(StoreError):
    """Changes could not be written, none of them; perhaps they can be later."""


class Store(Protocol):
    """Changes are durable (as far as the store is) when ``apply`` returns.

    ``apply`` raises :class:`NotWritten` when they cannot be written.
    """

    @property
    def name(self) -> str: ...

    def load(self) -> list[Stored]: ...

    def apply(self, changes: Sequence[SaveRecord | DeleteRecord]) -> None: ...

    def close(self) -> None: ...


class MemoryStore:
    """Keeps nothing beyond the process; the state machine has all it needs."""

    name = "memory"

    def load(self) -> list[Stored]:
        return []

    def apply(self, changes: Sequence[SaveRecord | DeleteRecord]) -> None:
        pass

    def close(self) -> None:
        pass


class SqliteStore:
    """One file for one coordinator at a time; may be used from any thread, one call at a time."""

    def __init__(
        self,
        path: Path,
        *,
        version: tuple[int, int] = SCHEMA_VERSION,
        migrations: Mapping[int, Migration] = MIGRATIONS,
    ) -> None:
        """Open or create ``path``; raises :class:`StoreError`."""
        self.name = str(path)
        self._path = path
        try:
            if not path.parent.is_dir():
                private_dir(path.parent)
            self._lock = _lock(path)
        except OSError as error:
            raise StoreError(
                f"{path}: the store cannot be opened ({error.strerror}); name another place with "
                "--store redb:PATH"
            ) from error
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = self._connect()
            try:
                self._prepare(version, migrations)
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            # the rest are errors of the disk: full, read-only, broken
            no_store = not isinstance(error, sqlite3.OperationalError | OSError)
            raise StoreError(
                f"{path}: the store cannot be opened ({error}); "
                + (
                    "start with --recreate-store to put it aside and begin an empty one"
                    if no_store
                    else "make room, or name another place with --store redb:PATH"
                )
            ) from error
        except BaseException:
            os.close(self._lock)
            raise

    def _prepare(self, version: tuple[int, int], migrations: Mapping[int, Migration]) -> None:
        found = _decode_version(self._db.execute("PRAGMA user_version").fetchone()[0])
        if found is not None and found[0] > version[0]:
            raise StoreError(
                f"{self._path}: written by a newer dora (store version {_text(found)}, this one "
                f"reads up to {version[0]}.x); upgrade dora-coordinator, or start with "
                "--recreate-store to put it aside"
            )
        if found is not None and found[0] < version[0]:
            self._migrate(found[0], version[0], migrations)
        self._db.execute("PRAGMA journal_mode=WAL")
        for table in _TABLES:
            self._db.execute(table)
        if found is None or found < version:
            self._db.execute(f"PRAGMA user_version={version[0] * 1000 + version[1]}")

    def _migrate(self, start: int, end: int, migrations: Mapping[int, Migration]) -> None:
        copy = self._path.with_name(f"{self._path.name}.v{start}")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        shutil.copyfile(self._path, copy)
        copy.chmod(0o600)
        with self._transaction():
            for major in range(start, end):
                migrations[major](self._db)
            self._db.execute(f"PRAGMA user_version={end * 1000}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # some errors have ended it already
                self._db.execute("ROLLBACK")
            raise

    def load(self) -> list[Stored]:
        """All records; raises :class:`StoreError` naming one that cannot be read."""
        parts: dict[str, list[PartRecord]] = {}
        stored = []
        dataflow_id = ""
        try:
            query = "SELECT dataflow, record FROM part ORDER BY rowid"
            for dataflow_id, text in self._db.execute(query):
                part = PartRecord.model_validate_json(text)
                parts.setdefault(dataflow_id, []).append(part)
            query = "SELECT id, record, spec FROM dataflow JOIN spec ON spec.dataflow = id"
            for dataflow_id, text, spec in self._db.execute(query):
                record = DataflowRecord.model_validate_json(text)
                whole = record.model_copy(update={"parts": tuple(parts.get(dataflow_id, ()))})
                stored.append((whole, DataflowSpec.model_validate_json(spec)))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise StoreError(
                f"{self._path}: the record of dataflow {dataflow_id} cannot be read "
                f"({problem}); start with --recreate-store to put the store aside"
            ) from error
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: cannot be read ({error})") from error
        return stored

    def apply(self, changes: Sequence[SaveRecord | DeleteRecord]) -> None:
        """Write all changes, in their order, in one transaction."""
        try:
            if not self._path.exists():
                self._make_again()
            with self._transaction():
                for change in changes:
                    if isinstance(change, SaveRecord):
                        self._save(change)
                    else:
                        key = (change.dataflow_id,)
                        self._db.execute("DELETE FROM dataflow WHERE id = ?", key)
                        self._db.execute("DELETE FROM spec WHERE dataflow = ?", key)
                        self._db.execute("DELETE FROM part WHERE dataflow = ?", key)
        except (sqlite3.Error, OSError) as error:
            raise NotWritten(
                f"{self._path}: cannot be written ({error}): make room; until then nodes go on as "
                "they are, and nothing is started, stopped or taken over"
            ) from error

    def _make_again(self) -> None:
        """Somebody removed the file; all that was in it is in the one that we hold open.

        That one is closed before another has its name, because closing it removes the log beside.
        """
        if not self._path.parent.is_dir():
            private_dir(self._path.parent)
        copy = self._path.with_name(f"{self._path.name}.copy")
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT, 0o600))
        with closing(sqlite3.connect(copy)) as made:
            self._db.backup(made)
        self._db.close()
        for stale in ("-wal", "-shm"):
            self._path.with_name(f"{self._path.name}{stale}").unlink(missing_ok=True)
        copy.replace(self._path)
        self._db = self._connect()
        if not self._path.with_name(f"{self._path.name}.lock").exists():
            os.close(self._lock)
            self._lock = _lock(self._path)
        logger.warning("%s was removed: it is made again from what was in it", self._path)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA synchronous=FULL")
        return db

    def _save(self, change: SaveRecord) -> None:
        record = change.record
        row = (record.dataflow_id, record.model_dump_json(exclude={"parts"}))
        self._db.execute("INSERT OR REPLACE INTO dataflow VALUES (?, ?)", row)
        if change.spec is not None:
            row = (record.dataflow_id, change.spec.model_dump_json())
            self._db.execute("INSERT OR REPLACE INTO spec VALUES (?, ?)", row)
        self._db.executemany(
            "INSERT INTO part VALUES (?, ?, ?) "
            "ON CONFLICT (dataflow, daemon) DO UPDATE SET record = excluded.record",
            [(record.dataflow_id, part.daemon, part.model_dump_json()) for part in record.parts],
        )

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)


def _lock(path: Path) -> int:
    handle = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise StoreError(
            f"{path}: in use by another coordinator (process {owner}); stop that one, or give this "
            "one a store of its own: --store redb:PATH or --store memory"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _decode_version(number: int) -> tuple[int, int] | None:
    return None if number == 0 else divmod(number, 1000)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def open_store(text: str, default: Path, *, recreate: bool = False) -> Store:
    """The store that ``--store`` names: ``redb`` (the default file), ``redb:PATH`` or ``memory``.

    ``redb`` is what existing deployments call the durable store; ``sqlite`` means the same.
    """
    kind, colon, path = text.partition(":")
    if text == "memory":
        return MemoryStore()
    if kind not in ("redb", "sqlite") or (colon and not path):
        raise StoreError(f"--store {text!r}: expected redb, redb:PATH or memory")
    file = Path(path).expanduser().absolute() if path else default
    if file.is_dir():
        raise StoreError(f"--store {text}: {file} is a directory; expected the path of a file")
    if recreate and file.exists():
        _put_aside(file)
    return SqliteStore(file)


def _put_aside(file: Path) -> None:
    """Rename the store to `.old`, and the log beside it that a killed coordinator has left."""
    os.close(_lock(file))
    old = file.with_name(f"{file.name}.old")
    for stale in (f"{old.name}-wal", f"{old.name}-shm", f"{file.name}-shm"):
        file.with_name(stale).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        file.with_name(f"{file.name}-wal").replace(old.with_name(f"{old.name}-wal"))
    file.replace(old)
