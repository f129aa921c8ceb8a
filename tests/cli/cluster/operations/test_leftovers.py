"""`dora cluster remove` of a machine that the cluster file still contains, with real locks."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cluster.local_machine import LocalConnection

from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.decisions.existing_daemons import ExistingDaemon
from dora_cli.cluster.machines import remote_machine
from dora_cli.cluster.operations import leftovers
from dora_cli.cluster.ownership import reservation
from dora_cli.cluster.ownership.reservation import ClusterCommand
from dora_config.cluster.models import Cluster, Coordinator, Machine

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"),
    machines=(Machine(id="robot", host="robot"), Machine(id="gpu", host="gpu")),
)


def daemon(name: str) -> ExistingDaemon:
    facts = {"id": name, "name": name, "port": 6012, "coordinator": ("10.0.0.1", 6013)}
    facts |= {"user": "ubuntu", "mine": True, "pid": 1, "service": None, "user_service": False}
    facts |= {"since": 0.0, "token": None, "owner": None, "dataflows": ()}
    return ExistingDaemon.model_validate(facts)


def test_its_daemon_is_ended_and_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evicted: list[str | None] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(remote_machine, "connect", lambda target: LocalConnection(target.host))
    monkeypatch.setattr(reservation, "survey", lambda connection: [daemon(connection.name)])
    monkeypatch.setattr(queries, "remove_machines", lambda cluster, names: tuple(names))
    monkeypatch.setattr(leftovers, "evict", lambda remote, one: evicted.append(one.id))
    file = tmp_path / "cluster.yml"
    command = ClusterCommand("remove", file, refuses=False, surveys_all=True)
    assert leftovers.remove(CLUSTER, command, ["gpu"])
    assert evicted == ["gpu"]
    told = capsys.readouterr()
    assert "Removing daemon gpu from gpu" in told.out
    assert f'machine "gpu" is still in {file}; delete it there' in told.err
