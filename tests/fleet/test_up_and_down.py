"""`dora cluster up`, `status` and `down` on real machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.cluster.clusters import (
    cluster_file,
    coordinator_process,
    daemons,
    dataflows,
    ended_cluster,
    forget_ticks,
    ours,
    pids,
    running,
    seen,
    ticking,
    wait_for_ticks,
)
from support.cluster.hosts import WORKSTATION, Hosts
from support.dora import run_dora
from support.mac import MAC

pytestmark = pytest.mark.integration

UP = f"""\
Starting coordinator on {WORKSTATION}:6013... OK
Starting daemon on robot (ubuntu@10.77.0.2)... OK
Starting daemon on gpu (ubuntu@10.77.0.3)... OK
All 2 daemons connected.
"""


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    forget_ticks(hosts)
    path = cluster_file(hosts, tmp_path, robot={"labels": {"role": "edge"}})
    with ended_cluster(path):
        yield path


def up(path: Path, code: int = 0) -> str:
    done = run_dora("cluster", "up", path).exited(code)
    return done.stdout + done.stderr


def listens_at() -> set[str]:
    """Addresses at which the coordinator of the test listens."""
    found = psutil.Process(coordinator_process()).net_connections("tcp")
    return {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN}


def test_quick_start_leaves_nothing(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    before = {host.name: host.files() for host in hosts}
    done = run_dora("cluster", "logs", cluster).exited(1)
    assert "robot | no log: no daemon was started there" in done.stderr
    assert up(cluster) == UP
    assert listens_at() == {WORKSTATION, "127.0.0.1"}
    flow = ticking(hosts, tmp_path, one="robot", two="gpu")
    run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
    for name, node in (("robot", "one"), ("gpu", "two")):
        wait_for_ticks(hosts[name], node)
    table = run_dora("cluster", "status").succeeded().stdout.splitlines()
    assert table[0].split("  ")[:3] == ["DAEMON ID", "LAST HEARTBEAT", "VERSION"]
    assert any(line.startswith("robot ") and "role=edge" in line for line in table)
    assert table[-1] == "Active dataflows: 1"
    lines = run_dora("cluster", "status", "--format", "json").succeeded().stdout.splitlines()
    assert {json.loads(line)["machine_id"] for line in lines} == {"robot", "gpu"}
    restarted = run_dora("cluster", "restart", "my-app").succeeded().stdout.splitlines()
    assert restarted[0].startswith("dataflow restarted: ")
    wait_for_ticks(hosts["robot"], "one")
    down = run_dora("cluster", "down").succeeded().stdout.splitlines()
    assert down[0] == "Dataflow my-app stopped"
    assert down[2:] == [
        "Clearing robot (ubuntu@10.77.0.2)... OK",
        "Clearing gpu (ubuntu@10.77.0.3)... OK",
    ]
    assert seen(hosts["gpu"], "two")[-1] == "stop"
    for host in hosts:
        assert ours(host) == []
        work = "/home/ubuntu/_work", "/home/ubuntu/ticker.py"
        left = {name for name in host.files() if not name.startswith(work)}
        assert left == set(before[host.name])


def test_commands_from_a_mac(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    done = run_dora("cluster", "up", cluster, env=MAC).succeeded()
    assert done.stdout == UP
    flow = ticking(hosts, tmp_path, one="robot")
    run_dora("start", flow, "--detach", env=MAC).succeeded()
    wait_for_ticks(hosts["robot"], "one")
    names = run_dora("cluster", "exec", cluster, "hostname", env=MAC).succeeded().stdout.split()
    assert sorted(names) == ["gpu", "gpu", "robot", "robot", "|", "|"]
    assert "robot | " in run_dora("cluster", "logs", cluster, env=MAC).succeeded().output
    run_dora("cluster", "down", cluster, env=MAC).succeeded()
    assert not any(ours(host) for host in hosts)


def test_store_is_recreated_on_demand(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    up(cluster)
    flow = ticking(hosts, tmp_path, one="robot")
    run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
    done = run_dora("cluster", "up", "--recreate-store", cluster).succeeded()
    assert "its store is in use and was not changed" in done.stderr
    assert [one.name for one in running()] == ["my-app"]
    run_dora("cluster", "down", cluster).succeeded()
    assert dataflow_names(cluster) == ["my-app"]
    assert dataflow_names(cluster, "--recreate-store") == []


def dataflow_names(cluster: Path, *options: str) -> list[str | None]:
    """Names of the dataflows that a new coordinator loads."""
    run_dora("cluster", "up", *options, cluster).succeeded()
    names = [one.name for one in dataflows()]
    run_dora("cluster", "down", cluster).succeeded()
    return names


def test_changed_settings_restart_the_daemon(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    up(cluster)
    run_dora("start", ticking(hosts, tmp_path, one="robot"), "--detach").succeeded()
    wait_for_ticks(hosts["robot"], "one")
    before = ours(hosts["gpu"])
    changed = {"labels": {"role": "arm"}, "env": {"COLOUR": "red"}}
    text = up(cluster_file(hosts, tmp_path, robot=changed))
    assert "robot (ubuntu@10.77.0.2)... OK (restarted with new labels or ports and env)" in text
    assert "gpu (ubuntu@10.77.0.3)... runs already" in text
    assert ours(hosts["gpu"]) == before
    assert daemons()["robot"].labels == {"role": "arm"}
    wait_for_ticks(hosts["robot"], "one")
    assert len(pids(hosts["robot"], "one")) == 1
    assert "runs already" in up(cluster)


def test_unreachable_machine_does_not_affect_the_others(hosts: Hosts, cluster: Path) -> None:
    hosts["gpu"].cut()
    try:
        text = up(cluster, 1)
        assert "Starting daemon on robot (ubuntu@10.77.0.2)... OK" in text
        assert "Starting daemon on gpu (ubuntu@10.77.0.3)... FAILED: " in text
        assert "Cluster partially up: 1 of 2 daemons connected, missing: gpu" in text
    finally:
        hosts["gpu"].mend()
    text = up(cluster)
    assert "robot (ubuntu@10.77.0.2)... runs already" in text
    assert "gpu (ubuntu@10.77.0.3)... OK" in text


def test_coordinator_is_ended_if_no_daemon_starts(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    path = cluster_file(
        hosts, tmp_path, robot={"user": "unknown-user"}, gpu={"dora": "/opt/none/dora"}
    )
    text = up(path, 1)
    assert "unknown-user may not log in with the keys that were tried" in text
    assert "/opt/none/dora (`dora` in the cluster file) does not exist there" in text
    assert "the coordinator was ended again" in text
    run_dora("cluster", "status").exited(1)


def test_full_disk_is_found_before_any_change(hosts: Hosts, cluster: Path) -> None:
    robot = hosts["robot"]
    robot.root("mkdir", "-p", "/home/ubuntu/.local")
    robot.root("mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "tmpfs", "/home/ubuntu/.local")
    try:
        text = up(cluster, 1)
        assert "robot (ubuntu@10.77.0.2)... FAILED: its disk has 1 MiB free" in text
        assert ours(robot) == []
    finally:
        robot.root("umount", "/home/ubuntu/.local")
        robot.root("rmdir", "/home/ubuntu/.local")


def test_error_has_the_last_output_of_a_daemon(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    bad = hosts["gpu"].path("/home/ubuntu/dora")
    bad.write_text("#!/bin/sh\ncase $1 in daemon) echo no camera found; exit 3;; esac\n")
    bad.chmod(0o755)
    path = cluster_file(hosts, tmp_path, gpu={"dora": "/home/ubuntu/dora"})
    text = up(path, 1)
    assert "gpu (ubuntu@10.77.0.3)... FAILED: the daemon ended at once with exit code 3" in text
    assert "no camera found" in text
    bad.unlink()
