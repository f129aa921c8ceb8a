"""Code that is sent to real hosts over the coordinator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.clusters import cluster_file, dataflows, ended_cluster
from support.cluster.hosts import Host, Hosts
from support.dora import Completed, run_dora
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
    logs = host.path("/home/ubuntu/_work").glob("*/out/*/log_*.jsonl")
    of_nodes = [path for path in logs if not path.name.startswith("log_dora")]
    return log_files.texts(max(of_nodes, key=lambda path: path.stat().st_mtime))


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
    assert "sending 5 files" in first.output
    assert "sending 2 files" in second.output
