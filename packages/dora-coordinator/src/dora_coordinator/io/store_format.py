"""On-disk format of the durable store: version, tables and rows of its SQLite file.

`PRAGMA user_version` is ``major * 1000 + minor``; 0 is a new file. Rows contain the JSON of
`DataflowRecord` without its parts, `StoredPart`, `DataflowSpec`, `MachineRecord`, `FleetStatus`
(generation 0 of its table) and `StoredGeneration`; the table `change` counts. A new field
with a default needs a new minor version, any other change a new major version; `DataflowSpec` has
the version of the control plane's messages instead, and its dataflow `DATAFLOW_FORMAT`.
"""

from __future__ import annotations

import sqlite3
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from dora_config.frozen import first_problem
from dora_config.protocol.dataflow import DataflowSpec
from dora_config.protocol.fleet import FleetStatus, StoredGeneration
from dora_coordinator.state.commands import DeleteRecord, SaveFleet, SaveMachine, SaveRecord
from dora_coordinator.state.events import StoreLoaded
from dora_coordinator.state.identities import MachineRecord
from dora_coordinator.state.records import DataflowRecord, StoredPart

M = TypeVar("M", bound=BaseModel)

Version = tuple[int, int]
"""Major and minor."""
SCHEMA_VERSION: Final[Version] = (1, 0)

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS dataflow (id TEXT PRIMARY KEY, record TEXT NOT NULL)",
    # a separate table: an update writes the whole row, and a specification can have megabytes
    "CREATE TABLE IF NOT EXISTS spec (dataflow TEXT PRIMARY KEY, spec TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS part "
    "(dataflow TEXT NOT NULL, daemon TEXT NOT NULL, record TEXT NOT NULL, "
    "PRIMARY KEY (dataflow, daemon))",
    "CREATE TABLE IF NOT EXISTS machine (id TEXT PRIMARY KEY, record TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS fleet (generation INTEGER PRIMARY KEY, record TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS change (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
    "INSERT OR IGNORE INTO change VALUES (0, 0)",
)


class UnreadableRecord(Exception):
    """A row cannot be decoded."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(problem)
        self.what = what


def read_version(db: sqlite3.Connection) -> Version | None:
    """Return the version of the file; None for a new one."""
    (number,) = db.execute("PRAGMA user_version").fetchone()
    return None if number == 0 else divmod(number, 1000)


def write_version(db: sqlite3.Connection, version: Version) -> None:
    db.execute(f"PRAGMA user_version={version[0] * 1000 + version[1]}")


def create_tables(db: sqlite3.Connection) -> None:
    for table in TABLES:
        db.execute(table)


def read_number(db: sqlite3.Connection) -> int:
    """Return how many changes were written."""
    (number,) = db.execute("SELECT number FROM change").fetchone()
    return int(number)


def count_change(db: sqlite3.Connection) -> None:
    db.execute("UPDATE change SET number = number + 1")


def read_all(db: sqlite3.Connection) -> StoreLoaded:
    """Return the whole content; raises :class:`UnreadableRecord`."""
    return StoreLoaded(_read_dataflows(db), _read_machines(db), *_read_fleet(db))


def _decoded(model: type[M], text: str, what: str) -> M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UnreadableRecord(what, first_problem(error)) from error


def _read_dataflows(db: sqlite3.Connection) -> list[tuple[DataflowRecord, DataflowSpec]]:
    parts: dict[str, list[StoredPart]] = {}
    for key, text in db.execute("SELECT dataflow, record FROM part ORDER BY rowid"):
        parts.setdefault(key, []).append(_decoded(StoredPart, text, f"dataflow {key}"))
    stored = []
    query = "SELECT id, record, spec FROM dataflow JOIN spec ON spec.dataflow = id"
    for key, text, spec in db.execute(query):
        record = _decoded(DataflowRecord, text, f"dataflow {key}")
        whole = record.model_copy(update={"parts": tuple(parts.get(key, ()))})
        stored.append((whole, _decoded(DataflowSpec, spec, f"dataflow {key}")))
    return stored


def _read_machines(db: sqlite3.Connection) -> list[MachineRecord]:
    return [
        _decoded(MachineRecord, text, f'machine "{machine}"')
        for machine, text in db.execute("SELECT id, record FROM machine")
    ]


def save_machine(db: sqlite3.Connection, change: SaveMachine) -> None:
    row = (change.record.machine, change.record.model_dump_json())
    db.execute("INSERT OR REPLACE INTO machine VALUES (?, ?)", row)


def _read_fleet(db: sqlite3.Connection) -> tuple[FleetStatus | None, list[StoredGeneration]]:
    """Return the position of the fleet and its generations."""
    status, generations = None, []
    query = "SELECT generation, record FROM fleet ORDER BY generation"
    for number, text in db.execute(query):
        what = f"generation {number} of the fleet"
        if number == 0:
            status = _decoded(FleetStatus, text, what)
        else:
            generations.append(_decoded(StoredGeneration, text, what))
    return status, generations


def save_fleet(db: sqlite3.Connection, change: SaveFleet) -> None:
    rows = [(0, change.status.model_dump_json())]
    rows += [(one.entry.generation, one.model_dump_json()) for one in change.generations]
    db.executemany("INSERT OR REPLACE INTO fleet VALUES (?, ?)", rows)
    db.executemany("DELETE FROM fleet WHERE generation = ?", [(one,) for one in change.removed])


def save(db: sqlite3.Connection, change: SaveRecord) -> None:
    record = change.record
    row = (record.dataflow_id, record.model_dump_json(exclude={"parts"}))
    db.execute("INSERT OR REPLACE INTO dataflow VALUES (?, ?)", row)
    if change.spec is not None:
        row = (record.dataflow_id, change.spec.model_dump_json())
        db.execute("INSERT OR REPLACE INTO spec VALUES (?, ?)", row)
    for daemon in change.removed:
        key = (record.dataflow_id, daemon)
        db.execute("DELETE FROM part WHERE dataflow = ? AND daemon = ?", key)
    db.executemany(
        "INSERT INTO part VALUES (?, ?, ?) "
        "ON CONFLICT (dataflow, daemon) DO UPDATE SET record = excluded.record",
        [(record.dataflow_id, part.daemon, part.model_dump_json()) for part in record.parts],
    )


def delete(db: sqlite3.Connection, change: DeleteRecord) -> None:
    key = (change.dataflow_id,)
    db.execute("DELETE FROM dataflow WHERE id = ?", key)
    db.execute("DELETE FROM spec WHERE dataflow = ?", key)
    db.execute("DELETE FROM part WHERE dataflow = ?", key)
