"""Arguments of several `dora cluster` commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.conftest import Dora

from dora_cli.commands.cluster import select_machines
from dora_config.cluster.models import Cluster, Coordinator, Machine
from dora_config.errors import DoraError


def test_machines_are_selected_by_id() -> None:
    machines = tuple(Machine(id=name, host="h") for name in ("a", "b"))
    cluster = Cluster(coordinator=Coordinator(addr="10.0.0.1"), machines=machines)
    assert select_machines(cluster, None) == machines
    assert select_machines(cluster, ["b"]) == machines[1:]
    with pytest.raises(
        DoraError, match='no machine "c" in the cluster file; its machines are: a, b'
    ):
        select_machines(cluster, ["c"])


def test_status_reads_the_coordinator_of_a_cluster_file(dora: Dora, tmp_path: Path) -> None:
    path = tmp_path / "cluster.yml"
    path.write_text(
        "coordinator: {addr: 127.0.0.1, port: 9}\nmachines: [{id: robot, host: robot}]\n"
    )
    shown = dora("cluster", "status", str(path))
    assert shown.code == 1
    assert "127.0.0.1:9" in shown.err
