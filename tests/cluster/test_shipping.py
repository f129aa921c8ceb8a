"""Code that is sent to real hosts, over SSH and over the coordinator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.clusters import cluster_file, daemons, dataflows, ended_cluster
from support.cluster.hosts import WORKSTATION, Host, Hosts
from support.dora import Completed, run_dora, running_dora
from support.runner import log_files
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = pytest.mark.integration

READER = """
    from pathlib import Path
    import words
    from dora import Node

    Node()
    here = Path(__file__).parent
    print(words.GREETING, (here / "data" / "name.txt").read_text(), Path.cwd() == here, flush=True)
"""


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    path = cluster_file(hosts, tmp_path)
    with ended_cluster(path):
        run_dora("cluster", "up", path, timeout=90).succeeded()
        yield path
    for host in hosts:
        host.root("rm", "-rf", "/home/ubuntu/_work")


def project(workspace: Workspace, distribute: str, *machines: str) -> Path:
    workspace.file("project/reader.py", READER)
    workspace.file("project/words.py", 'GREETING = "hello"\n')
    workspace.file("project/data/name.txt", "robot")
    nodes = [
        {
            "id": f"on-{name}",
            "path": "reader.py",
            "deploy": {"machine": name, "distribute": distribute},
        }
        for name in machines
    ]
    return workspace.dataflow({"nodes": nodes}, "project/dataflow.yml")


def start(path: Path) -> Completed:
    return run_dora("start", path, "--detach", timeout=90)


def printed(host: Host) -> list[str]:
    """Output of the last run of its node."""
    logs = sorted(
        host.path("/home/ubuntu/_work").glob("*/out/*/log_*.jsonl"), key=lambda p: p.stat().st_mtime
    )
    return log_files.texts(logs[-1])


@pytest.mark.parametrize("distribute", ["scp", "http"])
def test_node_is_sent_with_its_module_and_data(
    hosts: Hosts, cluster: Path, workspace: Workspace, distribute: str
) -> None:
    path = project(workspace, distribute, "robot", "gpu")
    first = start(path).succeeded()
    wait_until(lambda: dataflows()[-1].status == "Finished", what="the end")
    for host in hosts:
        assert printed(host) == ["hello robot True"]
    workspace.file("project/words.py", 'GREETING = "goodbye"\n')
    second = start(path).succeeded()
    wait_until(lambda: [one.status for one in dataflows()] == ["Finished"] * 2, what="the end")
    for host in hosts:
        assert printed(host) == ["goodbye robot True"]
    if distribute == "scp":
        assert "Sending code to robot (ubuntu@10.77.0.2)... OK (5 files" in first.output
        assert "Sending code to robot (ubuntu@10.77.0.2)... OK (2 files" in second.output
    else:
        assert "sending 5 files" in first.output
        assert "sending 2 files" in second.output


def test_unreachable_machine_fails_the_start(
    hosts: Hosts, cluster: Path, workspace: Workspace
) -> None:
    path = project(workspace, "scp", "robot", "gpu")
    hosts["gpu"].cut()
    try:
        failed = start(path).exited(1)
    finally:
        hosts["gpu"].mend()
    assert "Sending code to robot (ubuntu@10.77.0.2)... OK" in failed.output
    assert "could not send code to: gpu; nothing was started" in failed.output
    assert dataflows() == []


def test_scp_with_machines_that_were_only_installed(
    hosts: Hosts, workstation: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """`install` has recorded the machines; the coordinator was not started by `up`."""
    cluster = cluster_file(hosts, tmp_path)
    with ended_cluster(cluster):
        run_dora("cluster", "install", cluster).succeeded()
        try:
            with running_dora(
                "coordinator", "--interface", WORKSTATION, "--store", "memory"
            ) as process:
                process.wait_for("Listening on port")
                wait_until(lambda: "robot" in daemons(), what="the daemon of robot")
                flow = project(workspace, "scp", "robot")
                words = ("start", flow, "--detach", "--coordinator-addr", WORKSTATION)
                done = run_dora(*words, timeout=90).succeeded()
                assert "Sending code to robot (ubuntu@10.77.0.2)... OK" in done.output
        finally:
            run_dora("cluster", "uninstall", cluster).succeeded()
