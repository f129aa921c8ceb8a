"""`dora cluster uninstall`: the record of the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cluster.local_machine import LocalConnection
from support.cluster.machine_facts import machine_facts

from dora_cluster.bundle.install import Installer
from dora_cluster.machines import remote_machine
from dora_cluster.machines.remote_machine import RemoteMachine
from dora_cluster.operations import install
from dora_cluster.ownership import known_clusters, reservation
from dora_cluster.ownership.reservation import ClusterCommand
from dora_config.access import Endpoint
from dora_config.cluster.models import Cluster, Coordinator, Machine

CLUSTER = Cluster(
    coordinator=Coordinator(addr="10.0.0.1"), machines=(Machine(id="robot", host="robot"),)
)


@pytest.mark.parametrize("runs", [False, True], ids=["no daemon", "daemon of up"])
def test_a_cluster_whose_daemons_run_stays_recorded(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: bool
) -> None:
    daemon = {"pid": 1, "words": []} if runs else None
    monkeypatch.setattr(remote_machine, "connect", lambda target: LocalConnection(target.host))
    monkeypatch.setattr(reservation, "survey", lambda _: [])
    monkeypatch.setattr(RemoteMachine, "facts", lambda _: machine_facts(daemon=daemon))
    monkeypatch.setattr(install, "uninstall_coordinator", lambda *_: True)
    file = home / "cluster.yml"
    known_clusters.keep(CLUSTER, file)
    command = ClusterCommand("uninstall", file)
    assert install.uninstall_services(CLUSTER, CLUSTER, Installer(None), command)
    assert (known_clusters.find(Endpoint("10.0.0.1", 6013)) is not None) is runs
    assert ("`dora cluster down` ends it" in capsys.readouterr().out) is runs
