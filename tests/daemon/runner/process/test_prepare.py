"""Preparation of nodes: problems that are found before a process is spawned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dora_config.dataflow.resolved import NodeLocation, ResolvedDataflow, ResolvedNode
from dora_config.protocol.run_plan import RunPlan
from dora_daemon.runner.errors import PreparationError
from dora_daemon.runner.process.prepare import Preparer


def preparer(folder: Path, node: ResolvedNode, place: NodeLocation) -> Preparer:
    plan = RunPlan(
        dataflow_id="d",
        resolved=ResolvedDataflow(nodes=(node,)),
        working_dir=str(folder),
        create_working_dirs=True,
        places={node.id: place},
    )
    return Preparer(plan, folder / "packages", {"PATH": ""})


def test_a_missing_working_directory_is_created(tmp_path: Path) -> None:
    node = ResolvedNode(id="n", path=sys.executable)
    nodes = preparer(tmp_path, node, NodeLocation(working_dir="a/b"))
    nodes.prepare_all()
    (prepared,) = nodes.nodes
    assert prepared.cwd == tmp_path / "a" / "b"
    assert prepared.cwd.is_dir()


@pytest.mark.parametrize(
    ("name", "reason"), [("x" * 300, "File name too long"), ("file/sub", "Not a directory")]
)
def test_a_working_directory_that_cannot_be_created(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    node = ResolvedNode(id="n", path=sys.executable)
    with pytest.raises(PreparationError) as caught:
        preparer(tmp_path, node, NodeLocation(working_dir=name)).prepare_all()
    assert caught.value.problems == (
        f'node "n": cannot create the working directory {tmp_path / name}: {reason}',
    )
