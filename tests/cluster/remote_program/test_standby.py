"""What a standby keeps, and which coordinator its daemon is pointed at."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dora_cluster.remote_program import coordinator
from dora_cluster.remote_program.paths import daemon_folder, state_dir
from dora_cluster.remote_program.protocol import RemoteProblem

CLAIM = {"cluster": "ab", "epoch": 2, "machine": "base", "address": "10.0.0.2:6013"}
OURS = {"authority": "ab", "claim": CLAIM, "standbys": []}


@pytest.fixture(autouse=True)
def folder(home: object) -> None:
    daemon_folder("base").mkdir(parents=True)


def test_survey_returns_no_secret() -> None:
    assert coordinator.survey("base", 6013) == {"claim": None, "copy": None, "store": None}
    path = daemon_folder("base") / "coordinator-copy.json"
    head = {"authority": "ab", "epoch": 1, "machine": "", "number": 7}
    copy = {**head, "sealed": "secret"}
    path.write_text(json.dumps(copy))
    found = coordinator.survey("base", 6013)["copy"]
    assert found.pop("age") < 60
    assert found == head
    assert coordinator.read("base") == {"copy": copy}
    path.write_text("{")  # damaged
    assert coordinator.survey("base", 6013)["copy"] is None


@pytest.mark.parametrize(
    ("before", "written"),
    [
        (None, True),
        ({**OURS, "claim": {**CLAIM, "epoch": 1}}, True),
        (
            {**OURS, "claim": {**CLAIM, "epoch": 1 << 62}},
            True,
        ),  # not signed, or the daemon keeps it
        ({"authority": "cd", "claim": CLAIM}, False),  # of another cluster
    ],
)
def test_the_daemon_gets_the_claim_of_its_cluster(
    before: dict[str, object] | None, written: bool
) -> None:
    path = daemon_folder("base") / "coordinators.json"
    if before is not None:
        path.write_text(json.dumps(before))
        assert coordinator.survey("base", 6013)["claim"] == before["claim"]
    coordinator.follow("base", OURS)
    assert (json.loads(path.read_text()) == OURS) == written
    coordinator.follow("absent", OURS)
    assert not daemon_folder("absent").exists()


def test_a_coordinator_that_cannot_start_is_reported() -> None:
    with pytest.raises(RemoteProblem, match="exit code 3"):
        coordinator.start(["sh", "-c", "exit 3"], "token")
    assert coordinator.end() == {"ended": False}


def make_coordinator(folder: Path, **record: object) -> Path:
    """Write the store and the succession of a coordinator on port 6013."""
    folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(folder / "store.sqlite3")) as db:
        db.execute("CREATE TABLE change (number INTEGER)")
        db.execute("INSERT INTO change VALUES (7)")
        db.commit()
    (folder / "succession-6013.json").write_text(json.dumps(record))
    return folder


def test_the_store_of_a_coordinator_is_reported() -> None:
    folder = make_coordinator(state_dir() / "coordinator", claim=CLAIM)
    assert coordinator.survey("base", 6013)["store"] == {"claim": CLAIM, "number": 7}
    assert coordinator.own_store(6014) == {"store": None}
    (folder / "store.sqlite3").write_text("damaged")
    assert coordinator.own_store(6013) == {"store": None}


def test_a_start_that_failed_is_undone() -> None:
    state = state_dir()
    folder = make_coordinator(state / "coordinator", claim=CLAIM)
    earlier = state / "coordinator.earlier"
    folder.rename(earlier)
    (make_coordinator(folder) / "files").mkdir()
    coordinator.undo()
    assert json.loads((folder / "succession-6013.json").read_text()) == {"claim": CLAIM}
    assert (folder / "files").exists(), "the code that it had"
    assert not earlier.exists()
    coordinator.undo()  # nothing was here before
    assert not folder.exists()


def test_an_empty_store_has_no_successor() -> None:
    successor = {**CLAIM, "epoch": 5, "machine": "rover"}
    standbys = [{"machine": "rover", "address": "10.0.0.3:6013"}]
    folder = make_coordinator(
        state_dir() / "coordinator", claim=CLAIM, standbys=standbys, successor=successor
    )
    coordinator.put_store_aside()
    assert not (folder / "store.sqlite3").exists()
    record = json.loads((folder / "succession-6013.json").read_text())
    assert record == {"claim": {**CLAIM, "epoch": 6}}, "its coordinator signs it when it starts"


def test_a_promoted_coordinator_is_removed_with_its_tokens() -> None:
    tokens = Path.home() / ".config" / "dora" / "tokens"
    tokens.mkdir(parents=True)
    for host in ("127.0.0.1", "10.0.0.2", "10.9.9.9"):
        (tokens / f"{host}:6013").touch()
    folder = make_coordinator(state_dir() / "coordinator", claim=CLAIM)
    coordinator.remove("10.0.0.2", 6013)
    assert folder.exists(), "the user's own"
    (folder / ".of-service").touch()
    (state_dir() / "coordinator.earlier").mkdir()
    coordinator.remove("10.0.0.2", 6013)
    assert not folder.exists()
    assert not (state_dir() / "coordinator.earlier").exists()
    assert [path.name for path in tokens.iterdir()] == ["10.9.9.9:6013"]
