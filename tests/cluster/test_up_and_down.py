"""`dora cluster up`, `status`, `exec`, `logs`, `doctor` and `down` on real machines."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clusters import (
    cluster_file,
    daemons,
    ended_cluster,
    forget_ticks,
    ours,
    pids,
    running,
    seen,
    ticking,
    wait_for_ticks,
)
from support.dora import run_dora, running_dora
from support.hosts import DESK, Hosts
from support.waiting import wait_until

pytestmark = pytest.mark.integration

UP = f"""\
Starting coordinator on {DESK}:6013... OK
Starting daemon on robot (ubuntu@10.77.0.2)... OK
Starting daemon on gpu (ubuntu@10.77.0.3)... OK
All 2 daemons connected.
"""


@pytest.fixture
def cluster(hosts: Hosts, desk: Path, tmp_path: Path) -> Iterator[Path]:
    forget_ticks(hosts)
    path = cluster_file(hosts, tmp_path, robot={"labels": {"role": "edge"}})
    with ended_cluster(path):
        yield path


def up(path: Path, code: int = 0) -> str:
    done = run_dora("cluster", "up", path, timeout=90).exited(code)
    return done.stdout + done.stderr


def test_quick_start_and_nothing_left(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    before = {host.name: host.files() for host in hosts}
    assert up(cluster) == UP
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
    assert restarted[0] == "Restarting dataflow `my-app`"
    assert restarted[1].startswith("dataflow restarted: ")
    wait_for_ticks(hosts["robot"], "one")
    down = run_dora("cluster", "down", timeout=60).succeeded().stdout.splitlines()
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


def test_a_second_up_finds_what_runs(hosts: Hosts, cluster: Path) -> None:
    up(cluster)
    first = {name: ours(hosts[name]) for name in ("robot", "gpu")}
    again = up(cluster)
    assert f"Starting coordinator on {DESK}:6013... runs already" in again
    assert "Starting daemon on gpu (ubuntu@10.77.0.3)... runs already (dora " in again
    assert {name: ours(hosts[name]) for name in ("robot", "gpu")} == first


def test_nothing_secret_is_on_a_command_line_or_in_a_log(
    hosts: Hosts, cluster: Path, desk: Path
) -> None:
    up(cluster)
    token = (desk / "config/dora/token").read_text().strip()
    robot = hosts["robot"]
    place = robot.path("/home/ubuntu/.local/state/dora/daemon/robot/given/dora-token")
    assert place.read_text().strip() == token
    assert place.stat().st_mode & 0o777 == 0o600
    assert token not in robot.root("ps", "-eo", "args").stdout
    assert token not in robot.root("journalctl", "--no-pager").stdout
    assert (
        token not in robot.path("/home/ubuntu/.local/state/dora/log/daemon-robot.log").read_text()
    )


def test_a_machine_that_is_cut_off_stops_no_other(hosts: Hosts, cluster: Path) -> None:
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


def test_when_no_machine_works_the_coordinator_is_ended_again(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    path = cluster_file(
        hosts, tmp_path, robot={"user": "nobody-here"}, gpu={"dora": "/opt/none/dora"}
    )
    text = up(path, 1)
    assert "nobody-here may not log in with the keys that were tried" in text
    assert "/opt/none/dora (`dora` in the cluster file) is not there" in text
    assert "the coordinator was ended again" in text
    run_dora("cluster", "status").exited(1)


def test_a_changed_host_key_and_another_shell(hosts: Hosts, cluster: Path, desk: Path) -> None:
    hosts["gpu"].root("usermod", "-s", "/bin/sh", "ubuntu")
    up(cluster)
    hosts["robot"].new_host_key()
    text = up(cluster, 1)
    assert "its host key has CHANGED" in text
    assert f"{desk}/.ssh/known_hosts:" in text
    assert "gpu (ubuntu@10.77.0.3)... runs already" in text
    assert "robot" in daemons()
    (desk / ".ssh/known_hosts").unlink()
    up(cluster)
    hosts["gpu"].root("usermod", "-s", "/bin/bash", "ubuntu")


def test_a_full_disk_is_said_before_anything_is_done(hosts: Hosts, cluster: Path) -> None:
    robot = hosts["robot"]
    robot.root("mkdir", "-p", "/home/ubuntu/.local")
    robot.root("mount", "-t", "tmpfs", "-o", "size=1m,mode=777", "tmpfs", "/home/ubuntu/.local")
    try:
        text = up(cluster, 1)
        assert "robot (ubuntu@10.77.0.2)... FAILED: its disk has 1 MiB free" in text
        assert ours(robot) == []
    finally:
        robot.root("umount", "/home/ubuntu/.local")
        robot.root("rmdir", "/home/ubuntu/.local")


def test_a_daemon_that_does_not_come_shows_its_last_words(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    bad = hosts["gpu"].path("/home/ubuntu/dora")
    bad.write_text("#!/bin/sh\ncase $1 in daemon) echo no camera found; exit 3;; esac\n")
    bad.chmod(0o755)
    path = cluster_file(hosts, tmp_path, gpu={"dora": "/home/ubuntu/dora"})
    text = up(path, 1)
    assert "gpu (ubuntu@10.77.0.3)... FAILED: the daemon ended at once with exit code 3" in text
    assert "no camera found" in text
    bad.unlink()


def test_a_coordinator_that_is_killed_is_started_again(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    up(cluster)
    run_dora("start", ticking(hosts, tmp_path, one="robot"), "--detach").succeeded()
    wait_for_ticks(hosts["robot"], "one")
    os.kill(_coordinator(), signal.SIGKILL)
    wait_until(lambda: not daemons(), what="the end of the coordinator")
    text = up(cluster)
    assert f"Starting coordinator on {DESK}:6013... OK" in text
    assert "All 2 daemons connected." in text
    wait_until(running, what="the dataflow to be known again")
    assert len(pids(hosts["robot"], "one")) == 1


def _coordinator() -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            mine = f"HOME={os.environ['HOME']}".encode()
            if b"dora_coordinator.command" in words and mine in (
                path.with_name("environ").read_bytes().split(b"\0")
            ):
                return int(path.parent.name)
        except OSError:
            continue
    raise AssertionError("no coordinator runs")


def test_two_machines_with_one_id(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    up(cluster)
    text = cluster.read_text().replace("10.77.0.3", "10.77.0.99").replace("10.77.0.2", "10.77.0.3")
    (tmp_path / "other.yml").write_text(text.replace("10.77.0.99", "10.77.0.2"))
    wrong = up(tmp_path / "other.yml", 1)
    assert 'is connected with machine id "robot", and no daemon runs here' in wrong


def test_exec_and_logs(hosts: Hosts, cluster: Path) -> None:
    done = run_dora("cluster", "exec", cluster, "--", "sh", "-c", "hostname; exit 3").exited(1)
    assert sorted(done.stdout.splitlines()) == ["gpu   | gpu", "robot | robot"]
    assert sorted(done.stderr.splitlines()) == ["gpu   | exit code 3", "robot | exit code 3"]
    done = run_dora("cluster", "exec", cluster, "-m", "gpu", "--", "printf", "a b")
    assert done.succeeded().stdout == "gpu   | a b\n".replace("gpu   ", "gpu ")
    run_dora("cluster", "exec", cluster, "-m", "nobody", "--", "true").exited(1)
    done = run_dora("cluster", "logs", cluster).exited(1)
    assert "robot | no log: no daemon was started there" in done.stderr
    up(cluster)
    os.kill(_coordinator(), signal.SIGKILL)

    def says_so() -> bool:
        return "robot | " in run_dora("cluster", "logs", cluster).succeeded().stdout

    wait_until(says_so, what="a line of the daemon about its coordinator")


def test_logs_are_followed_until_they_are_interrupted(hosts: Hosts, cluster: Path) -> None:
    up(cluster)
    log = hosts["gpu"].path("/home/ubuntu/.local/state/dora/log/daemon-gpu.log")
    with running_dora("cluster", "logs", cluster, "--follow") as following:
        with log.open("a") as file:
            file.write("a word from gpu\n")
        following.wait_for("gpu   | a word from gpu")
        following.interrupt()
        following.wait()
    wait_until(
        lambda: not any("tail" in line for line in hosts["gpu"].processes()),
        what="the end of what followed there",
    )


def test_doctor_sees_every_pair(hosts: Hosts, cluster: Path) -> None:
    up(cluster)
    text = run_dora("cluster", "doctor", cluster, timeout=60).succeeded().stdout
    assert f"Coordinator: {DESK}:6013, 2 connected" in text
    matrix = text.splitlines()[-3:]
    assert matrix[0].split() == ["robot", "gpu"]
    assert "ms" in matrix[1]
    hosts.partition("robot", "gpu")
    try:
        text = run_dora("cluster", "doctor", cluster, timeout=60).exited(1).stdout
    finally:
        hosts.heal()
    assert text.count("FAILED") == 2
    assert "- robot -> gpu: no data link: " in text
    assert "open ports 7450-7549 (TCP) of gpu for robot" in text
