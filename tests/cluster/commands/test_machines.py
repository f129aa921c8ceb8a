"""Arguments of several `dora cluster` commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Dora

from dora_cluster.commands.machines import select_machines
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


@pytest.mark.parametrize("command", ["status", "history", "diff", "apply"])
def test_an_unreachable_coordinator_of_a_cluster_file(
    command: str, dora: Dora, tmp_path: Path
) -> None:
    path = tmp_path / "my cluster.yml"
    path.write_text(
        "coordinator: {addr: 127.0.0.1, port: 9}\nmachines: [{id: robot, host: robot}]\n"
        "dataflows: {d: {file: d.yml}}\n"
    )
    (tmp_path / "d.yml").write_text("nodes: [{id: a, path: sleep, args: '1'}]\n")
    shown = dora("cluster", command, str(path))
    assert shown.code == 1
    assert shown.err.endswith(
        "cannot connect to the coordinator at 127.0.0.1:9 ([Errno 111] Connection refused); start "
        f"it and the daemons of the file with `dora cluster up '{path}'`\n"
    )


def test_an_unreachable_coordinator_of_another_machine(dora: Dora) -> None:
    """`dora up` would start another one here."""
    shown = dora("list", "--coordinator-addr", "host.invalid")
    assert "check that it runs there, or name another with --coordinator-addr" in shown.err
    assert "dora up" not in shown.err
