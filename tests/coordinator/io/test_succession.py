"""Copies of the state: encryption, what a coordinator that takes over has, and damaged files."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from support.claims import signed
from support.simulation.fleets import dataflow

from dora_config.access_token import Token
from dora_config.protocol.claims import Claim
from dora_config.protocol.control import Standby
from dora_config.protocol.daemon import CoordinatorCopy
from dora_coordinator.io.authority import Authority
from dora_coordinator.io.store import MemoryStore, SqliteStore, StoreError
from dora_coordinator.io.succession import (
    CopyError,
    Restoration,
    SuccessionFile,
    begin,
    copy_of,
    make_copy,
    restore,
    seal,
    unseal,
)
from dora_coordinator.state.commands import SaveMachine, SaveRecord
from dora_coordinator.state.identities import MachineRecord
from dora_coordinator.state.records import DataflowRecord, Phase
from dora_coordinator.state.succession import SuccessionRecord
from dora_daemon.signatures import is_valid

AUTHORITY = "ab" * 32
TOKEN = Token("secret")
STANDBYS = (Standby(machine="base", address="10.0.0.2:6013"),)


def sealed(content: bytes = b"state") -> CoordinatorCopy:
    head = CoordinatorCopy(authority=AUTHORITY, epoch=1, machine="base", number=7)
    return seal(content, "secret", head)


def test_a_copy_is_read_with_the_token_only() -> None:
    copy = sealed()
    assert unseal(copy, "secret") == b"state"
    assert b"state" not in base64.b64decode(copy.sealed)
    damaged = base64.b64encode(base64.b64decode(copy.sealed)[:-1] + b"x").decode()
    for other in (
        copy.model_copy(update={"sealed": damaged}),
        copy.model_copy(update={"sealed": "?"}),
        copy.model_copy(update={"epoch": 2}),
        copy.model_copy(update={"machine": "rover"}),
        copy.model_copy(update={"number": 8}),
        copy.model_copy(update={"authority": "cd" * 32}),
    ):
        with pytest.raises(CopyError, match="damaged, or encrypted with another token"):
            unseal(other, "secret")
    with pytest.raises(CopyError):
        unseal(copy, "other")
    assert sealed().sealed != copy.sealed


def copy_of_coordinator(folder: Path) -> Restoration:
    """The copy of a coordinator with a running and an ended dataflow and a machine."""
    authority = Authority(folder / "authority")
    store = SqliteStore(folder / "store.sqlite3")
    spec = dataflow(camera="robot").model_copy(update={"name": "drive"})
    running = DataflowRecord(dataflow_id="d1", name="drive", phase=Phase.RUNNING, number=1)
    ended = running.model_copy(update={"dataflow_id": "d2", "ended_at": 1.0})
    store.apply([SaveRecord(running, spec), SaveRecord(ended, spec)])
    store.apply([SaveMachine(MachineRecord(machine="robot", digest="aa"))])
    copy = make_copy(store, authority, '{"successor": "x"}', TOKEN, Claim())
    store.close()
    assert copy.number == 2
    address = "10.0.0.2:6013"
    return Restoration(token="secret", state=copy, epoch=5, machine="base", address=address)


def test_a_coordinator_takes_over_with_everything(tmp_path: Path) -> None:
    state = tmp_path / "state"
    given = copy_of_coordinator(tmp_path / "old")
    restored = restore(state, 6013, given)
    assert restored.dataflows == 1
    folder = state / "coordinator"
    assert Authority(folder / "authority").fingerprint == given.state.authority
    assert (folder / "tokens-6013.json").read_text() == '{"successor": "x"}'
    claim = restored.claim
    assert SuccessionFile(folder / "succession-6013.json").read() == SuccessionRecord(claim=claim)
    assert (claim.rank, claim.address) == ((5, "base"), "10.0.0.2:6013")
    assert is_valid(claim, given.state.authority)
    store = SqliteStore(folder / "store.sqlite3")
    assert [record.dataflow_id for record, _ in store.load().stored] == ["d1", "d2"]
    assert [one.machine for one in store.load().machines] == ["robot"]
    for name in ("store.sqlite3", "authority/key.pem", "tokens-6013.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match="in use by another coordinator"):
        restore(state, 6013, given)
    store.close()
    (folder / "mine").touch()
    (folder / "files").mkdir()
    restore(state, 6013, given)  # again, with the earlier folder put aside
    assert (state / "coordinator.earlier" / "mine").exists()
    assert (folder / "files").exists(), "the code that it had"


def test_a_wrong_token_leaves_everything_as_it_was(tmp_path: Path) -> None:
    given = copy_of_coordinator(tmp_path / "old").model_copy(update={"token": "other"})
    state = tmp_path / "state"
    (state / "coordinator").mkdir(parents=True)
    with pytest.raises(CopyError):
        restore(state, 6013, given)
    assert [path.name for path in state.iterdir()] == ["coordinator"]
    assert list((state / "coordinator").iterdir()) == []


def test_a_copy_that_no_coordinator_made_is_refused(tmp_path: Path) -> None:
    """A robot has the token, with which copies are encrypted, but not the authority's key."""
    given = copy_of_coordinator(tmp_path / "old")
    theirs = copy_of_coordinator(tmp_path / "robot").state
    packed = unseal(given.state, "secret")
    head = given.state.model_copy(update={"number": 1 << 62})
    again = seal(packed, "secret", head)
    for copy in (
        again,
        again.model_copy(update={"proof": theirs.proof}),
        given.state.model_copy(update={"sealed": theirs.sealed}),
    ):
        with pytest.raises(CopyError):
            restore(tmp_path / "state", 6013, given.model_copy(update={"state": copy}))
    assert not (tmp_path / "state" / "coordinator").exists()


def test_an_empty_store_in_the_place_of_a_lost_one_begins_an_epoch(tmp_path: Path) -> None:
    file = SuccessionFile(tmp_path / "succession.json")
    store = SqliteStore(tmp_path / "store")
    authority = Authority(tmp_path / "authority")
    claim = begin(file, store, authority).claim
    assert claim.epoch == 1
    assert is_valid(claim, authority.fingerprint)
    assert begin(file, store, authority).claim == claim  # without standbys there are no copies
    file.write(SuccessionRecord(claim=claim, standbys=STANDBYS))
    assert begin(file, MemoryStore(), authority).epoch == 1
    claim = begin(file, store, authority).claim
    assert claim.epoch == 2
    assert is_valid(claim, authority.fingerprint)
    store.apply([SaveMachine(MachineRecord(machine="robot"))])
    assert begin(file, store, authority).epoch == 2
    store.close()
    (tmp_path / "succession.json").write_text("{")
    with pytest.raises(CopyError, match="delete it, then run `dora cluster up`"):
        file.read()


def test_a_new_authority_is_that_of_a_new_cluster(tmp_path: Path) -> None:
    file = SuccessionFile(tmp_path / "succession.json")
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    file.write(SuccessionRecord(claim=signed(old, 1), successor=signed(old, 2, "base")))
    assert begin(file, MemoryStore(), old).successor is not None
    record = begin(file, MemoryStore(), new)
    assert record.successor is None
    assert is_valid(record.claim, new.fingerprint)


def test_a_requested_empty_store_leads_again(tmp_path: Path) -> None:
    """Also after a successor, whose machines would refuse the epoch before."""
    file, authority = SuccessionFile(tmp_path / "succession.json"), Authority(tmp_path / "own")
    record = SuccessionRecord(
        claim=signed(authority, 1, "", "10.0.0.1:6013"),
        standbys=STANDBYS,
        successor=signed(authority, 4, "base"),
    )
    file.write(record)
    made = begin(file, MemoryStore(), authority, recreate=True)
    assert (made.epoch, made.standbys, made.successor) == (5, (), None)
    assert made.claim.address == "10.0.0.1:6013"
    assert is_valid(made.claim, authority.fingerprint)
    assert begin(file, MemoryStore(), authority) == made


def test_a_copy_is_made_of_a_store_whose_coordinator_does_not_run(tmp_path: Path) -> None:
    given = copy_of_coordinator(tmp_path / "old")
    state = tmp_path / "state"
    restore(state, 6013, given)
    copy = copy_of(state, 6013, "secret")
    assert (copy.epoch, copy.machine, copy.number) == (5, "base", 2)
    other = given.model_copy(update={"state": copy, "epoch": 6})
    assert restore(tmp_path / "other", 6013, other).dataflows == 1
    with pytest.raises(CopyError, match="no coordinator was on port 6014"):
        copy_of(state, 6014, "secret")
    (state / "coordinator" / "tokens-6013.json").unlink()
    copy_of(state, 6013, "secret")
