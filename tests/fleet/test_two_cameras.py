"""The example `two_cameras` on two machines: clocks that differ, and a cut between them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from support.cluster.clusters import cluster_file, dataflows, ended_cluster
from support.cluster.host_clocks import give_clock, set_clock, take_clock
from support.cluster.hosts import Hosts
from support.dora import run_dora
from support.sources import ROOT
from support.waiting import wait_until

pytestmark = pytest.mark.integration

FROM_1970 = -20_700 * 24 * 3600.0
ON_GPU = ("wrist", "policy")
AGES = """
from dora import Node

oldest = 0.0
for event in Node():
    if event["type"] == "INPUT" and event["id"] == "action":
        metadata = event["metadata"]
        if metadata["source"] == "policy":
            oldest = max(oldest, (metadata["timestamp"] - metadata["stamp"]).total_seconds())
print(f"the oldest command that was obeyed was {oldest:.3f} s old", flush=True)
"""


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    try:
        for host in hosts:
            give_clock(host)
            set_clock(host, 0)
        path = cluster_file(hosts, tmp_path)
        with ended_cluster(path):
            yield path
    finally:
        for host in hosts:
            take_clock(host)
            host.root("rm", "-rf", "/home/ubuntu/_work")


def start(folder: Path, *more: Mapping[str, object]) -> None:
    """Start the example without its end, one camera and the policy on `gpu`, with more nodes."""
    example = folder / "two_cameras"
    shutil.copytree(ROOT / "examples" / "two_cameras", example)
    human = (example / "human.py").read_text()
    assert "5 * RATE" in human
    (example / "human.py").write_text(human.replace("5 * RATE", "50000 * RATE"))
    (example / "ages.py").write_text(AGES)
    path = example / "dataflow.yml"
    nodes = [*yaml.safe_load(path.read_text())["nodes"], *more]
    for node in nodes:
        machine = "gpu" if node["id"] in ON_GPU else "robot"
        node["deploy"] = {"machine": machine, "distribute": "http"}
    path.write_text(yaml.safe_dump({"nodes": nodes}))
    run_dora("start", path, "--name", "cameras", "--detach", timeout=120).succeeded()


def log(node: str) -> str:
    return run_dora("logs", "cameras", node).stdout


def wait_for_log(node: str, text: str, count: int = 1) -> None:
    wait_until(lambda: log(node).count(text) >= count, what=lambda: log(node))


def test_machines_whose_clocks_are_decades_apart(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    """The pictures of both cameras and the joints are of the same instant all the same."""
    set_clock(hosts["robot"], FROM_1970)
    run_dora("cluster", "up", cluster, timeout=90).succeeded()
    start(tmp_path)
    wait_for_log("gate", "policy is obeyed", 2)  # before and after the human
    run_dora("stop", "cameras").succeeded()
    wait_for_log("robot", "actions: ")
    found = re.search(
        r"actions: .*?(\d+) from human, (\d+) from policy; pictures at most (\d+\.\d) ms apart",
        log("robot"),
    )
    assert found, log("robot")
    human, policy, spread = map(float, found.groups())
    assert human > 5
    assert policy > 5
    assert 0 < spread <= 40  # twice `within`


def test_the_robot_holds_while_the_policy_is_cut_off(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    run_dora("cluster", "up", cluster, timeout=90).succeeded()
    start(tmp_path, {"id": "ages", "path": "ages.py", "inputs": {"action": "gate/action"}})
    wait_for_log("gate", "policy is obeyed", 2)
    for cuts in (1, 2):
        hosts["gpu"].cut()
        wait_for_log("gate", "holds the last action: no new command of any source", cuts)
        hosts["gpu"].mend()
        wait_for_log("gate", "policy is obeyed", 2 + cuts)
    assert [one.status for one in dataflows()] == ["Running"]
    run_dora("stop", "cameras").succeeded()
    wait_for_log("ages", "the oldest command")
    found = re.search(r"the oldest command that was obeyed was (\d+\.\d+) s old", log("ages"))
    assert found
    assert float(found[1]) < 1.0
