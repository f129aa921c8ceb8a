"""`dora cluster remove` of a machine that the cluster file still contains, with real locks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cluster.local_machine import LocalConnection

from dora_cli.coordinator.errors import CoordinatorUnreachable
from dora_cluster.connection import MachineConnection
from dora_cluster.coordinator import queries
from dora_cluster.decisions.existing_daemons import ExistingDaemon
from dora_cluster.errors import Unreachable
from dora_cluster.machines import remote_machine
from dora_cluster.operations import leftovers
from dora_cluster.ownership import reservation
from dora_cluster.ownership.reservation import ClusterCommand
from dora_config.cluster.models import Cluster, Coordinator, Machine

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"),
    machines=(Machine(id="robot", host="robot"), Machine(id="gpu", host="gpu")),
)


def daemon(name: str, owner: dict[str, Any] | None = None) -> ExistingDaemon:
    facts: dict[str, Any] = {
        "id": name,
        "name": name,
        "port": 6012,
        "coordinator": ("10.0.0.1", 6013),
    }
    facts |= {"user": "ubuntu", "mine": True, "pid": 1, "service": None, "user_service": False}
    facts |= {"since": 0.0, "token": None, "owner": owner, "dataflows": ()}
    return ExistingDaemon.model_validate(facts)


@pytest.fixture
def evicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Ids of ended daemons; the coordinator runs, and so does each machine's daemon."""
    ended: list[str | None] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(remote_machine, "connect", lambda target: LocalConnection(target.host))
    monkeypatch.setattr(reservation, "survey", lambda connection: [daemon(connection.name)])
    monkeypatch.setattr(queries, "remove_machines", lambda cluster, names: tuple(names))
    monkeypatch.setattr(leftovers, "evict", lambda remote, one: ended.append(one.id))
    return ended


@pytest.fixture
def command(tmp_path: Path) -> ClusterCommand:
    return ClusterCommand("remove", tmp_path / "cluster.yml", refuses=False, surveys_all=True)


def test_its_daemon_is_ended_and_the_file_is_named(
    evicted: list[str | None], command: ClusterCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leftovers.remove(CLUSTER, command, ["gpu"])
    assert evicted == ["gpu"]
    told = capsys.readouterr()
    assert "Removing daemon gpu from gpu" in told.out
    assert f'machine "gpu" is still in {command.file}; delete it there' in told.err
    assert "was not examined" not in told.err


def without_coordinator(cluster: Cluster, names: list[str]) -> tuple[str, ...]:
    raise CoordinatorUnreachable("no coordinator answers")


@pytest.mark.parametrize("coordinator_runs", [True, False])
def test_a_machine_that_is_off_is_named_with_the_reason(
    evicted: list[str | None],
    command: ClusterCommand,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    coordinator_runs: bool,
) -> None:
    def connect(target: Machine) -> MachineConnection:
        if target.host == "gpu":
            raise Unreachable("gpu (gpu)", "no SSH server answers")
        return LocalConnection(target.host)

    monkeypatch.setattr(remote_machine, "connect", connect)
    if not coordinator_runs:
        monkeypatch.setattr(queries, "remove_machines", without_coordinator)
    assert leftovers.remove(CLUSTER, command, ["gpu"]) is coordinator_runs
    assert evicted == []
    told = " ".join(capsys.readouterr().err.split())
    assert "gpu (gpu) was not examined: no SSH server answers; run this again when it" in told


def test_a_daemon_of_another_account_is_left_with_its_owner_named(
    evicted: list[str | None],
    command: ClusterCommand,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    owner: dict[str, Any] = {
        "operator": "bob@desk",
        "home": "/srv/bob",
        "file": "/srv/bob/robots.yml",
    }
    owner |= {"since": 0.0, "settings": ""}
    monkeypatch.setattr(reservation, "survey", lambda one: [daemon(one.name, owner)])
    assert leftovers.remove(CLUSTER, command, ["gpu"])  # its key was revoked
    assert evicted == []
    told = " ".join(capsys.readouterr().err.split())
    assert "set up by: bob@desk from /srv/bob/robots.yml" in told
    assert "it was not ended; the account that set it up can remove it" in told
    assert told.count("bob@desk") == 1
