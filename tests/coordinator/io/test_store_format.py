"""Golden content of the durable store: a change needs a new version."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from support.simulation.fleets import dataflow

from dora_config.protocol.dataflow import StartIdentity
from dora_config.protocol.runner import DataflowResult, NodeResult
from dora_coordinator.io.store import SqliteStore
from dora_coordinator.io.store_format import SCHEMA_VERSION
from dora_coordinator.state.commands import SaveMachine, SaveRecord
from dora_coordinator.state.identities import MachineRecord
from dora_coordinator.state.records import DataflowRecord, PartState, Phase, StoredPart

GOLDEN_VERSION = (1, 0)

GOLDEN_TABLES = {
    "CREATE TABLE dataflow (id TEXT PRIMARY KEY, record TEXT NOT NULL)",
    "CREATE TABLE spec (dataflow TEXT PRIMARY KEY, spec TEXT NOT NULL)",
    "CREATE TABLE part (dataflow TEXT NOT NULL, daemon TEXT NOT NULL, record TEXT NOT NULL, "
    "PRIMARY KEY (dataflow, daemon))",
    "CREATE TABLE machine (id TEXT PRIMARY KEY, record TEXT NOT NULL)",
    "CREATE TABLE change (id INTEGER PRIMARY KEY, number INTEGER NOT NULL)",
    "CREATE TABLE fleet (generation INTEGER PRIMARY KEY, record TEXT NOT NULL)",
}

GOLDEN_MACHINE = '{"machine":"robot","digest":"ab","former":"","local":true,"removed":["cd"]}'

GOLDEN_DATAFLOW = (
    '{"dataflow_id":"d1","name":"patrol","phase":"failed","number":7,'
    '"reason":"the stop was not confirmed",'
    '"stopped_since":"daemon \\"robot\\" was stopped",'
    '"unreported":true,"ended_at":1700000000.5,"grace":1.5,"force":true,'
    '"stop_requested":false,"restart_as":null,"restart_spec":null,'
    '"replaces":null,"begun":{"time":1700000000.0,"epoch":2,"number":7,"signature":""},"changes":3}'
)

GOLDEN_PART = (
    '{"daemon":"robot","nodes":["camera"],"state":"ended","attempt":2,'
    '"result":{"dataflow_id":"d1","name":"patrol","nodes":[{"node":"camera","outcome":"failed",'
    '"message":"exited with code 1","caused_by":null,"exit_code":null,"signal":null,'
    '"stderr_tail":[],"restarts":0,"order":0}],"stop_reason":null,"error":null,"log_dir":null},"revision":0,'
    '"claimed":false}'
)

GOLDEN_SPEC = (
    '{"resolved":{"nodes":[{"id":"camera","path":"camera.py","deploy":{"machine":"robot"}}]},'
    '"name":"patrol"}'
)
"""Without fields that have a default; `dora_config` defines them."""

RECORD = DataflowRecord(
    dataflow_id="d1",
    name="patrol",
    phase=Phase.FAILED,
    parts=(
        StoredPart(
            daemon="robot",
            nodes=("camera",),
            state=PartState.ENDED,
            attempt=2,
            result=DataflowResult(
                dataflow_id="d1",
                name="patrol",
                nodes=(NodeResult(node="camera", outcome="failed", message="exited with code 1"),),
            ),
        ),
    ),
    number=7,
    reason="the stop was not confirmed",
    stopped_since='daemon "robot" was stopped',
    unreported=True,
    ended_at=1700000000.5,
    grace=1.5,
    force=True,
    begun=StartIdentity(time=1700000000.0, epoch=2, number=7),
    changes=3,
)
MACHINE = MachineRecord(machine="robot", digest="ab", local=True, removed=("cd",))
SPEC = dataflow(camera="robot").model_copy(update={"name": "patrol"})


def test_rows_of_this_version_do_not_change(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = SqliteStore(path)
    store.apply([SaveRecord(RECORD, SPEC), SaveMachine(MACHINE)])
    store.close()
    db = sqlite3.connect(path)
    assert SCHEMA_VERSION == GOLDEN_VERSION
    assert db.execute("PRAGMA user_version").fetchone() == (1000,)
    tables = {sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql NOTNULL")}
    assert tables == GOLDEN_TABLES
    assert db.execute("SELECT * FROM dataflow").fetchall() == [("d1", GOLDEN_DATAFLOW)]
    assert db.execute("SELECT * FROM part").fetchall() == [("d1", "robot", GOLDEN_PART)]
    assert db.execute("SELECT * FROM machine").fetchall() == [("robot", GOLDEN_MACHINE)]
    db.close()


def test_rows_of_this_version_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "store"
    SqliteStore(path).close()
    db = sqlite3.connect(path)
    with db:
        db.execute("INSERT INTO dataflow VALUES (?, ?)", ("d1", GOLDEN_DATAFLOW))
        db.execute("INSERT INTO spec VALUES (?, ?)", ("d1", GOLDEN_SPEC))
        db.execute("INSERT INTO part VALUES (?, ?, ?)", ("d1", "robot", GOLDEN_PART))
        db.execute("INSERT INTO machine VALUES (?, ?)", ("robot", GOLDEN_MACHINE))
    db.close()
    store = SqliteStore(path)
    assert store.load().stored == [(RECORD, SPEC)]
    assert store.load().machines == [MACHINE]
    store.close()
