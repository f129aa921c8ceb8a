"""Code that does not fit on the disk of a machine is not sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.clusters import cluster_file, dataflows, ended_cluster
from support.cluster.hosts import Host, Hosts
from support.dora import Completed, run_dora
from support.workspace import Workspace

pytestmark = pytest.mark.integration

STATE = "/home/ubuntu/.local/state/dora"
SMALL = 72 << 20
"""Bytes of the disk; a daemon needs 64 MiB."""


@pytest.fixture
def small_disk(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Host]:
    """The robot of a running cluster; its daemon has a small disk of its own."""
    robot = hosts["robot"]
    robot.root("install", "-d", "-o", "ubuntu", "-g", "ubuntu", STATE)
    robot.root("mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", STATE)
    robot.root("chown", "ubuntu:ubuntu", STATE)
    try:
        path = cluster_file(hosts, tmp_path)
        with ended_cluster(path):
            run_dora("cluster", "up", path, timeout=90).succeeded()
            yield robot
    finally:
        robot.root("umount", "-l", STATE)
        robot.root("rm", "-rf", "/home/ubuntu/_work", STATE)


def project(workspace: Workspace, size: int) -> Path:
    """A node on the robot with a file of that size beside it."""
    workspace.file("project/reader.py", "from dora import Node\nNode()\n")
    with workspace.file("project/model.bin", "").open("wb") as model:
        model.truncate(size)
    deploy = {"machine": "robot", "distribute": "http"}
    node = {"id": "reader", "path": "reader.py", "deploy": deploy}
    return workspace.dataflow({"nodes": [node]}, "project/dataflow.yml")


def start(path: Path) -> Completed:
    return run_dora("start", path, "--detach", timeout=120)


def big_files(host: Host) -> list[Path]:
    """Complete or partial copies of the model."""
    return [
        path
        for path in host.path("/home/ubuntu").rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_size > 1 << 20
    ]


def test_code_that_does_not_fit_is_not_sent(small_disk: Host, workspace: Workspace) -> None:
    failed = start(project(workspace, 100 << 20)).exited(1)
    assert "robot" in failed.output
    assert f"{STATE}/code: its disk has 7" in failed.output
    assert "100.0 MiB are needed" in failed.output
    assert "make room there" in failed.output
    assert big_files(small_disk) == []
    assert not [one for one in dataflows() if one.status == "Running"]
    start(project(workspace, 1 << 10)).succeeded()
