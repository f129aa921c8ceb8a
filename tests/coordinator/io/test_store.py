"""Durable store: privacy, locking, versions, disk errors."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from shutil import rmtree

import pytest
from support.simulation.fleets import dataflow

from dora_config.protocol.dataflow import StartIdentity
from dora_coordinator.io.store import MemoryStore, NotWritten, SqliteStore, StoreError, open_store
from dora_coordinator.state.commands import DeleteRecord, SaveMachine, SaveRecord
from dora_coordinator.state.identities import MachineRecord
from dora_coordinator.state.records import DataflowRecord, PartState, Phase, new_record

SPEC = dataflow(camera="robot")


def record(dataflow_id: str = "d1") -> DataflowRecord:
    return new_record(dataflow_id, "a", {"robot": ("camera",)}, 1, StartIdentity())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.sqlite3"


def test_saved_records_are_loaded(path: Path) -> None:
    store = SqliteStore(path)
    running = record().model_copy(update={"phase": Phase.RUNNING})
    store.apply([SaveRecord(record(), SPEC), SaveRecord(running), SaveRecord(record("d2"), SPEC)])
    store.apply([DeleteRecord("d2")])
    store.close()
    again = SqliteStore(path)
    assert again.load().stored == [(running, SPEC)]
    again.close()


@pytest.mark.parametrize("what", ["the file", "all files", "the folder"])
def test_a_store_that_is_removed_while_it_is_open_is_recreated(path: Path, what: str) -> None:
    store = SqliteStore(path)
    store.apply([SaveRecord(record(), SPEC)])
    match what:
        case "the file":
            path.unlink()
        case "all files":
            for file in path.parent.iterdir():
                file.unlink()
        case "the folder":
            rmtree(path.parent)
    store.apply([SaveRecord(record("d2"), SPEC)])
    store.apply([SaveRecord(record("d3"), SPEC)])
    with pytest.raises(StoreError, match="in use by another coordinator"):
        SqliteStore(path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600
    store.close()
    again = SqliteStore(path)
    assert again.load().stored == [(record(name), SPEC) for name in ("d1", "d2", "d3")]
    again.close()


@pytest.mark.parametrize("step", ["replace", "connect", "lock"])
def test_a_store_that_could_not_be_recreated_is_recreated_later(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = SqliteStore(path)
    store.apply([SaveRecord(record(), SPEC)])
    for file in path.parent.iterdir():
        file.unlink()

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        match step:
            case "replace":
                broken.setattr(Path, "replace", fail)
            case "connect":
                broken.setattr(SqliteStore, "_open", fail)
            case "lock":
                broken.setattr(os, "pwrite", fail)
        with pytest.raises(NotWritten, match="No space left"):
            store.apply([SaveRecord(record("d2"), SPEC)])
    assert store.load().stored == [(record(), SPEC)]
    store.apply([SaveRecord(record("d2"), SPEC)])
    with pytest.raises(StoreError, match="in use by another coordinator"):
        SqliteStore(path)
    store.close()
    again = SqliteStore(path)
    assert again.load().stored == [(record(name), SPEC) for name in ("d1", "d2")]
    again.close()


def test_a_lock_that_cannot_be_written_is_released(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", fail)
        with pytest.raises(StoreError, match="No space left on device"):
            SqliteStore(path)
    SqliteStore(path).close()


def test_unchanged_parts_stay(path: Path) -> None:
    store = SqliteStore(path)
    first = new_record("d1", "a", {"robot": ("camera",), "station": ("net",)}, 1, StartIdentity())
    store.apply([SaveRecord(first, SPEC)])
    robot, station = first.parts
    ended = robot.model_copy(update={"state": PartState.ENDED})
    store.apply([SaveRecord(first.model_copy(update={"parts": (ended,)}))])
    assert [found.parts for found, _ in store.load().stored] == [(ended, station)]
    store.close()


def test_a_dataflow_saved_and_deleted_in_one_batch_leaves_nothing(path: Path) -> None:
    store = SqliteStore(path)
    store.apply([SaveRecord(record(), SPEC), DeleteRecord("d1")])
    assert store.load().stored == []
    store.close()


def test_only_the_user_can_read_the_store(path: Path) -> None:
    store = SqliteStore(path)
    store.apply([SaveRecord(record(), SPEC)])
    assert path.parent.stat().st_mode & 0o777 == 0o700
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    store.close()


def test_one_coordinator_at_a_time(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="in use by another coordinator"):
        SqliteStore(path)
    store.close()
    SqliteStore(path).close()


def test_a_store_of_another_major_version_is_refused_with_both_versions(path: Path) -> None:
    SqliteStore(path, version=(2, 0)).close()
    with pytest.raises(StoreError, match=r"store version 2\.0, this version of dora reads 1\.x"):
        SqliteStore(path)


def test_a_file_of_the_next_minor_version_opens_and_keeps_its_version(path: Path) -> None:
    store = SqliteStore(path, version=(1, 1))
    store.apply([SaveRecord(record(), SPEC)])
    store.close()
    older = SqliteStore(path, version=(1, 0))
    assert older.load().stored == [(record(), SPEC)]
    older.close()
    marked = sqlite3.connect(path)
    assert marked.execute("PRAGMA user_version").fetchone() == (1001,)
    marked.close()


def test_fields_of_a_newer_version_are_ignored(path: Path) -> None:
    store = SqliteStore(path)
    store.apply([SaveRecord(record(), SPEC)])
    newer = "json_set(spec, '$.priority', 3, '$.resolved.nodes[0].priority', 3)"
    store._db.execute(f"UPDATE spec SET spec = {newer}")
    assert store.load().stored == [(record(), SPEC)]
    store.close()


def test_a_file_that_is_not_a_store_is_refused_and_can_be_put_aside(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"this is not a database, but a letter" * 100)
    with pytest.raises(StoreError, match="--recreate-store"):
        open_store("redb", path)
    store = open_store("redb", path, recreate=True)
    assert store.load().stored == []
    store.close()
    assert path.with_name("store.sqlite3.old").read_bytes().startswith(b"this is not")


def test_a_store_that_is_put_aside_is_complete_after_a_kill(path: Path) -> None:
    killed = SqliteStore(path)
    killed.apply([SaveRecord(record(), SPEC)])
    os.close(killed._lock)  # like SIGKILL: the changes are still in the log
    open_store("redb", path, recreate=True).close()
    old = SqliteStore(path.with_name("store.sqlite3.old"))
    assert old.load().stored == [(record(), SPEC)]
    old.close()
    killed._db.close()


def test_an_unusable_path_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be opened.*--store redb:PATH"):
        open_store(f"redb:{tmp_path}/file/below", tmp_path / "unused")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StoreError, match="is a directory; expected the path of a file"):
        open_store(f"redb:{folder}", tmp_path / "unused", recreate=True)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == ["folder"]
    with pytest.raises(StoreError, match="write the path in full"):
        open_store("redb:~no-such-account/store", tmp_path / "unused")


def test_a_full_disk_is_not_answered_with_recreate_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(StoreError, match=r"disk I/O error.*make room") as refused:
        open_store("redb", path)
    assert "--recreate-store" not in str(refused.value)


def test_a_full_disk_is_reported_and_nothing_is_written_partly(path: Path) -> None:
    store = SqliteStore(path)
    store.apply([SaveRecord(record(), SPEC)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    large = record("d2").model_copy(update={"reason": "x" * 100_000})
    ended = record().model_copy(update={"phase": Phase.FAILED})
    with pytest.raises(StoreError, match="cannot be written"):
        store.apply([SaveRecord(ended), SaveRecord(large, SPEC)])
    assert store.load().stored == [(record(), SPEC)]
    store.close()


@pytest.mark.parametrize(
    ("table", "what"), [("dataflow", "dataflow d1"), ("machine", 'machine "robot"')]
)
def test_a_record_that_cannot_be_read_is_named(path: Path, table: str, what: str) -> None:
    store = SqliteStore(path)
    store.apply([SaveRecord(record(), SPEC), SaveMachine(MachineRecord(machine="robot"))])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE {table} SET record = '{{}}'")
    with pytest.raises(StoreError, match=rf"the record of {what} cannot .*--recreate-store"):
        store.load()
    store.close()


def test_names_of_stores(path: Path, tmp_path: Path) -> None:
    assert isinstance(open_store("memory", path), MemoryStore)
    other = open_store(f"redb:{tmp_path}/elsewhere.db", path)
    assert other.name == f"{tmp_path}/elsewhere.db"
    other.close()
    for wrong in ("redis", "redb:", "memory:x"):
        with pytest.raises(StoreError, match="expected redb, redb:PATH or memory"):
            open_store(wrong, path)
