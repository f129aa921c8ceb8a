"""`dora cluster exec`, `logs`, `doctor` and a second `up` with a running cluster."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from support.cluster.clusters import (
    coordinator_process,
    daemons,
    forget_ticks,
    ours,
    pids,
    running,
    ticking,
    wait_for_ticks,
)
from support.cluster.hosts import WORKSTATION, Hosts
from support.dora import run_dora, running_dora
from support.waiting import wait_until

from dora_config.access_token import Token

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture
def cluster(cluster_yml: Path) -> Path:
    """The cluster file; coordinator and daemons run."""
    if daemons().keys() != {"robot", "gpu"}:
        up(cluster_yml)
    return cluster_yml


def up(path: Path, code: int = 0) -> str:
    done = run_dora("cluster", "up", path).exited(code)
    return done.stdout + done.stderr


def end_daemons(hosts: Hosts) -> None:
    for host in hosts:
        pid = host.path(f"/home/ubuntu/.local/state/dora/daemon/{host.name}/lock").read_text()
        host.root("kill", pid)
    wait_until(lambda: not daemons(), what="the end of the daemons")


def test_second_up_changes_nothing(hosts: Hosts, cluster: Path) -> None:
    first = {name: ours(hosts[name]) for name in ("robot", "gpu")}
    again = up(cluster)
    assert f"Starting coordinator on {WORKSTATION}:6013... runs already" in again
    assert "Starting daemon on gpu (ubuntu@10.77.0.3)... runs already (dora " in again
    assert {name: ours(hosts[name]) for name in ("robot", "gpu")} == first


def test_token_is_not_on_a_command_line_or_in_a_log(
    hosts: Hosts, cluster: Path, shared_workstation: Path
) -> None:
    token = (shared_workstation / "config/dora/token").read_text().strip()
    robot = hosts["robot"]
    place = robot.path("/home/ubuntu/.local/state/dora/daemon/robot/given/dora-token")
    assert place.read_text().strip() == str(Token.parse(token).for_machine)
    secret = Token.parse(token).secret
    for path in map(robot.path, robot.files()):
        with suppress(OSError):
            content = path.read_bytes() if path.is_file() else b""
            assert secret.encode() not in content, f"{path} has the cluster's token"
    token = place.read_text().strip()
    assert place.stat().st_mode & 0o777 == 0o600
    assert token not in robot.root("ps", "-eo", "args").stdout
    assert token not in robot.root("journalctl", "--no-pager").stdout
    assert (
        token not in robot.path("/home/ubuntu/.local/state/dora/log/daemon-robot.log").read_text()
    )


def test_logs_are_followed_until_they_are_interrupted(hosts: Hosts, cluster: Path) -> None:
    log = hosts["gpu"].path("/home/ubuntu/.local/state/dora/log/daemon-gpu.log")
    with running_dora("cluster", "logs", cluster, "--follow") as following:
        with log.open("a") as file:
            file.write("a word from gpu\n")
        following.wait_for("gpu   | a word from gpu")
        following.interrupt()
        following.wait()
    wait_until(
        lambda: not any("tail" in line for line in hosts["gpu"].processes()),
        what="the end of the remote `tail`",
    )


def test_doctor_checks_every_pair(hosts: Hosts, cluster: Path) -> None:
    text = run_dora("cluster", "doctor", cluster).succeeded().stdout
    assert f"Coordinator: {WORKSTATION}:6013, 2 connected" in text
    matrix = text.splitlines()[-3:]
    assert matrix[0].split() == ["robot", "gpu"]
    assert "ms" in matrix[1]
    hosts.partition("robot", "gpu")
    try:
        text = run_dora("cluster", "doctor", cluster).exited(1).stdout
    finally:
        hosts.heal()
    assert text.count("FAILED") == 2
    assert "- robot -> gpu: no data link: " in text
    assert "open ports 7450-7549 (TCP) of gpu for robot" in text


def test_changed_host_key_and_another_shell(
    hosts: Hosts, cluster: Path, shared_workstation: Path
) -> None:
    hosts["gpu"].root("usermod", "-s", "/bin/sh", "ubuntu")
    end_daemons(hosts)
    up(cluster)
    hosts["robot"].new_host_key()
    text = up(cluster, 1)
    assert "its host key has CHANGED" in text
    assert f"{shared_workstation}/.ssh/known_hosts:" in text
    assert "gpu (ubuntu@10.77.0.3)... runs already" in text
    assert "robot" in daemons()
    (shared_workstation / ".ssh/known_hosts").unlink()
    up(cluster)
    hosts["gpu"].root("usermod", "-s", "/bin/bash", "ubuntu")


def test_two_machines_with_one_id(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    text = cluster.read_text().replace("10.77.0.3", "10.77.0.99").replace("10.77.0.2", "10.77.0.3")
    (tmp_path / "other.yml").write_text(text.replace("10.77.0.99", "10.77.0.2"))
    wrong = up(tmp_path / "other.yml", 1)
    assert 'is connected with machine id "robot", and no daemon runs here' in wrong


def test_killed_coordinator_is_started_again(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    forget_ticks(hosts)
    run_dora("start", ticking(hosts, tmp_path, one="robot"), "--detach").succeeded()
    wait_for_ticks(hosts["robot"], "one")
    os.kill(coordinator_process(), signal.SIGKILL)
    wait_until(lambda: not daemons(), what="the end of the coordinator")
    text = up(cluster)
    assert f"Starting coordinator on {WORKSTATION}:6013... OK" in text
    assert "All 2 daemons connected." in text
    wait_until(running, what="the dataflow to be reported again")
    assert len(pids(hosts["robot"], "one")) == 1
    run_dora("stop").succeeded()


def test_exec_and_logs(hosts: Hosts, cluster: Path) -> None:
    done = run_dora("cluster", "exec", cluster, "--", "sh", "-c", "hostname; exit 3").exited(1)
    assert sorted(done.stdout.splitlines()) == ["gpu   | gpu", "robot | robot"]
    assert sorted(done.stderr.splitlines()) == ["gpu   | exit code 3", "robot | exit code 3"]
    done = run_dora("cluster", "exec", cluster, "-m", "gpu", "--", "printf", "a b")
    assert done.succeeded().stdout == "gpu   | a b\n".replace("gpu   ", "gpu ")
    run_dora("cluster", "exec", cluster, "-m", "unknown", "--", "true").exited(1)
    os.kill(coordinator_process(), signal.SIGKILL)

    def has_a_line() -> bool:
        return "robot | " in run_dora("cluster", "logs", cluster).succeeded().stdout

    wait_until(has_a_line, what="a line of the daemon about its coordinator")
