"""Rare days of a fleet: an old or lost store, a power cut at the wrong moment, nodes that fail."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.cluster.clusters import (
    coordinator_process,
    daemons,
    dataflows,
    forget_ticks,
    put_script,
)
from support.cluster.hosts import Host, Hosts
from support.dora import run_dora
from support.waiting import wait_until

from dora_config.access import state_dir
from dora_config.protocol.control import DataflowSummary

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SOURCE = """
import os, pathlib
from dora import Node

node = Node()
with pathlib.Path("/var/tmp/source.seen").open("a") as seen:
    print("began", os.getpid(), file=seen, flush=True)
for event in node:
    if event["type"] == "INPUT":
        node.send_output("count", b"x")
"""
SINK = """
import os, pathlib
from dora import Node

broken = pathlib.Path("/var/tmp/broken")
node = Node()
with pathlib.Path("/var/tmp/sink.seen").open("a") as seen:
    print("began", os.getpid(), file=seen, flush=True)
    for event in node:
        if broken.exists():
            raise SystemExit(1)
        if event["type"] == "INPUT":
            print("message", file=seen, flush=True)
"""
MOTOR = """
import time
from dora import Node

began = time.monotonic()
for event in Node():
    if time.monotonic() - began > 2:
        raise SystemExit(3)
"""
FLOW: dict[str, Any] = {
    "nodes": [
        {
            "id": "source",
            "path": "/home/ubuntu/source.py",
            "deploy": {"machine": "robot"},
            "inputs": {"tick": "dora/timer/millis/50"},
            "outputs": ["count"],
        },
        {
            "id": "sink",
            "path": "/home/ubuntu/sink.py",
            "deploy": {"machine": "gpu"},
            "inputs": {"count": "source/count"},
        },
    ]
}
LONG = 100.0
"""Seconds for a repair on a busy computer; without other work it takes at most 60."""


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, cluster_yml: Path) -> Path:
    """A coordinator, and daemons as services on both hosts."""
    for name, text in (("source", SOURCE), ("sink", SINK), ("motor", MOTOR)):
        for host in hosts:
            put_script(host, f"{name}.py", text)
    run_dora("cluster", "install", cluster_yml).succeeded()
    run_dora("cluster", "up", cluster_yml).succeeded()
    return cluster_yml


@pytest.fixture
def flow(hosts: Hosts, cluster: Path, tmp_path: Path) -> Iterator[Path]:
    """The file of a dataflow over both hosts; the fixture ends what runs."""
    assert cluster.exists()
    forget_ticks(hosts)
    hosts["gpu"].path("/var/tmp/broken").unlink(missing_ok=True)
    wait_until(lambda: len(daemons()) == 2, timeout=LONG, what="both daemons")
    path = tmp_path / "flow.yml"
    path.write_text(yaml.safe_dump(FLOW))
    try:
        yield path
    finally:
        for host in hosts:
            if not host.is_on:
                host.boot()
            host.mend()
        run_dora("stop", "--all")


def lines(host: Host, node: str) -> list[str]:
    path = host.path(f"/var/tmp/{node}.seen")
    return path.read_text().splitlines() if path.exists() else []


def starts(host: Host, node: str) -> list[str]:
    return [line for line in lines(host, node) if line.startswith("began")]


def wait_for_messages(hosts: Hosts) -> None:
    gpu = hosts["gpu"]
    before = lines(gpu, "sink").count("message")

    def arrived() -> bool:
        return lines(gpu, "sink").count("message") > before + 10

    wait_until(
        arrived, timeout=LONG, what=lambda: f"messages; {listed()}; {lines(gpu, 'sink')[-3:]}"
    )


def listed() -> list[DataflowSummary]:
    return [one for one in dataflows() if one.ended_ago is None]


def require_one_running(hosts: Hosts) -> DataflowSummary:
    """Require one dataflow with both nodes, each of which has one process."""

    def running() -> bool:
        return [(one.status, one.nodes, one.reason) for one in listed()] == [("Running", 2, None)]

    wait_until(running, timeout=LONG, what=lambda: f"one dataflow; {listed()}")
    wait_for_messages(hosts)
    for host, script in ((hosts["robot"], "source.py"), (hosts["gpu"], "sink.py")):
        found = [line for line in host.processes() if script in line]
        assert len(found) == 1, found
    return listed()[0]


def store_files() -> list[Path]:
    return [path for path in (state_dir() / "coordinator").iterdir() if ".sqlite" in path.name]


def end_coordinator() -> None:
    os.kill(coordinator_process(), signal.SIGKILL)


def test_a_backup_that_is_older_than_what_runs(
    hosts: Hosts, cluster: Path, flow: Path, tmp_path: Path
) -> None:
    run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
    wait_for_messages(hosts)
    end_coordinator()
    backup = tmp_path / "backup"
    backup.mkdir()
    for path in store_files():
        shutil.copy2(path, backup)
    run_dora("cluster", "up", cluster).succeeded()
    wait_until(lambda: len(daemons()) == 2, timeout=LONG, what="both daemons")
    require_one_running(hosts)
    run_dora("restart", "my-app").succeeded()
    latest = require_one_running(hosts).uuid
    end_coordinator()
    for path in store_files():
        path.unlink()
    for path in backup.iterdir():
        shutil.copy2(path, state_dir() / "coordinator")
    hosts["gpu"].power_off()
    run_dora("cluster", "up", cluster)  # the machine without power fails
    wait_until(lambda: "robot" in daemons(), timeout=LONG, what="the first daemon")
    hosts["gpu"].boot()
    assert require_one_running(hosts).uuid == latest
    run_dora("restart", "my-app").succeeded()
    assert require_one_running(hosts).uuid != latest


def test_a_lost_store_and_a_rebooted_machine_that_connects_first(
    hosts: Hosts, cluster: Path, flow: Path
) -> None:
    run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
    before = require_one_running(hosts).uuid
    robot, gpu = hosts["robot"], hosts["gpu"]
    source = starts(robot, "source")
    end_coordinator()
    for path in store_files():
        path.unlink()
    gpu.reboot()
    robot.cut()
    run_dora("cluster", "up", cluster)  # the machine that is cut off fails
    wait_until(lambda: "gpu" in daemons(), timeout=LONG, what="the rebooted machine")
    (shown,) = listed()
    assert (shown.uuid, shown.status) == (before, "Recovering")
    assert "robot" in str(shown.reason)
    robot.mend()
    assert require_one_running(hosts).uuid == before
    assert starts(robot, "source") == source


def fleet_file(cluster: Path, flow: dict[str, Any], **more: Any) -> Path:
    """Write a cluster file that also describes this dataflow."""
    folder = cluster.parent
    (folder / "fleet-flow.yml").write_text(yaml.safe_dump(flow))
    content = yaml.safe_load(cluster.read_text())
    content |= {"dataflows": {"my-app": {"file": "fleet-flow.yml"}}, **more}
    path = folder / "fleet.yml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def applied(hosts: Hosts, cluster: Path, flow: Path) -> Iterator[Callable[..., Path]]:
    """A function that writes a fleet file; the dataflow that it describes runs."""
    assert flow.exists()

    def write(flow: dict[str, Any] = FLOW, **more: Any) -> Path:
        return fleet_file(cluster, flow, **more)

    run_dora("cluster", "apply", write(), "--yes", timeout=200).succeeded()
    require_one_running(hosts)
    yield write
    run_dora("stop", "--all")


def test_an_apply_repairs_a_dataflow_of_which_a_part_has_ended(
    hosts: Hosts, applied: Callable[..., Path]
) -> None:
    robot, gpu = hosts["robot"], hosts["gpu"]
    (uuid, source) = (listed()[0].uuid, starts(robot, "source"))
    gpu.path("/var/tmp/broken").touch()
    wait_until(
        lambda: 'node "sink" has failed' in str(listed()[0].reason),
        timeout=LONG,
        what=lambda: f"the mark in the list; {listed()}",
    )
    assert "`dora node restart sink` starts it again" in run_dora("why", "my-app").stdout
    assert "`dora node restart sink` starts it again" in run_dora("cluster", "status").stdout
    gpu.path("/var/tmp/broken").unlink()
    run_dora("cluster", "apply", applied(), "--yes", timeout=200).succeeded()
    assert require_one_running(hosts).uuid == uuid
    assert starts(robot, "source") == source
    assert len(starts(gpu, "sink")) == 2
    # by hand, too
    gpu.path("/var/tmp/broken").touch()
    wait_until(lambda: listed()[0].reason is not None, timeout=LONG, what="the mark")
    gpu.path("/var/tmp/broken").unlink()
    run_dora("node", "restart", "sink").succeeded()
    assert require_one_running(hosts).uuid == uuid


def test_a_rollback_leaves_the_neighbours_of_a_failed_node_alone(
    hosts: Hosts, applied: Callable[..., Path]
) -> None:
    robot, gpu = hosts["robot"], hosts["gpu"]
    before = (listed()[0].uuid, starts(robot, "source"), starts(gpu, "sink"))
    motor = {
        "id": "motor",
        "path": "/home/ubuntu/motor.py",
        "deploy": {"machine": "gpu"},
        "inputs": {"tick": "dora/timer/millis/100"},
    }
    rollout = {"healthy": "10s", "on_failure": "rollback"}
    file = applied({"nodes": [*FLOW["nodes"], motor]}, rollout=rollout)
    failed = run_dora("cluster", "apply", file, "--yes", timeout=200).exited(1)
    assert "motor" in failed.stdout + failed.stderr
    wait_until(lambda: listed()[0].nodes == 2, timeout=LONG, what=lambda: f"two; {listed()}")
    require_one_running(hosts)
    assert (listed()[0].uuid, starts(robot, "source"), starts(gpu, "sink")) == before
    assert 'node "motor" failed' in run_dora("why", "my-app").stdout


def test_a_restart_after_a_silent_power_cut_stops_nothing(hosts: Hosts, flow: Path) -> None:
    run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
    before = require_one_running(hosts).uuid
    robot, gpu = hosts["robot"], hosts["gpu"]
    source = starts(robot, "source")
    gpu.power_off()
    refused = run_dora("restart", "my-app").exited(1).stderr
    assert "was not restarted" in refused
    assert '"gpu"' in refused
    gpu.boot()
    assert require_one_running(hosts).uuid == before
    assert starts(robot, "source") == source
