"""Each problem that `doctor` can find, on a real host; it prints the problem and the remedy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import yaml
from support.cluster.clusters import coordinator_process, daemons
from support.cluster.hosts import WORKSTATION, Host, Hosts
from support.dora import run_dora, running_dora
from support.waiting import wait_until

pytestmark = pytest.mark.integration

HOME = "/home/ubuntu"
STATE = f"{HOME}/.local/state/dora"
Fault = Callable[[Host], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def cluster(cluster_yml: Path) -> Path:
    """The file of a running cluster; each test leaves it as it was."""
    run_dora("cluster", "up", cluster_yml, timeout=90).succeeded()
    return cluster_yml


def report(path: Path) -> str:
    done = run_dora("doctor", path, timeout=90).exited(1)
    return done.stdout + done.stderr


def daemon_pid(host: Host) -> int:
    return int(host.path(f"{STATE}/daemon/{host.name}/lock").read_text())


def test_stopped_daemon(hosts: Hosts, cluster: Path) -> None:
    robot = hosts["robot"]
    pid = daemon_pid(robot)
    fact = f"its daemon (process {pid}) is stopped by a signal (SIGSTOP)"
    robot.root("kill", "-STOP", pid)
    try:
        assert f"- robot (ubuntu@10.77.0.2): {fact}" in report(cluster)
        begin = time.monotonic()
        up = run_dora("cluster", "up", cluster).exited(1).output
        took = time.monotonic() - begin
        assert f"FAILED: {fact}" in up
        assert f"kill -CONT {pid}" in up
        assert took < 10
    finally:
        robot.root("kill", "-CONT", pid)
    wait_until(lambda: daemons()["robot"].heartbeat_age < 4, what="a heartbeat")
    assert "runs already" in run_dora("cluster", "up", cluster).succeeded().stdout


def test_another_token(hosts: Hosts, cluster: Path) -> None:
    """The coordinator has a new token; `up` copies it to the daemons."""
    ended = coordinator_process()
    os.kill(ended, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{ended}").exists(), what="the end of the coordinator")
    remedy = "- coordinator: none answers, but daemons run; start it: dora cluster up"
    assert remedy in report(cluster)
    token = Path(os.environ["XDG_CONFIG_HOME"]) / "dora" / "token"
    token.write_text("0" * 64 + "\n")
    with running_dora("coordinator", "--interface", "0.0.0.0") as coordinator:
        coordinator.wait_for("Listening on port ")
        fact = "its daemon has another token than this account; replace it: dora cluster up"
        for name in ("robot (ubuntu@10.77.0.2)", "gpu (ubuntu@10.77.0.3)"):
            assert f"- {name}: {fact}" in report(cluster)
        run_dora("cluster", "up", cluster, timeout=90).succeeded()
    run_dora("cluster", "up", cluster, timeout=90).succeeded()
    assert sorted(daemons()) == ["gpu", "robot"]


def test_account_without_token(cluster: Path) -> None:
    config = Path(os.environ["XDG_CONFIG_HOME"]) / "dora"
    kept = config.rename(config.with_name("kept"))
    try:
        text = report(cluster)
    finally:
        kept.rename(config)
    assert "requires a token, and this account has none: copy ~/.config/dora/token" in text
    assert "Looking at robot (ubuntu@10.77.0.2)... OK" in text


def test_another_coordinator(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(cluster.read_text())
    content["coordinator"]["port"] = 6099
    other = tmp_path / "other.yml"
    other.write_text(yaml.safe_dump(content))
    fact = f"its daemon (process {daemon_pid(hosts['robot'])}) belongs to another coordinator"
    assert f"{fact}, at {WORKSTATION} port 6013; to move it to this cluster" in report(other)


@contextmanager
def requiretty(host: Host) -> Iterator[None]:
    path = host.path("/etc/sudoers.d/zz-requiretty")
    path.write_text("Defaults requiretty\n")
    path.chmod(0o440)
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def nologin(host: Host) -> Iterator[None]:
    host.root("usermod", "--shell", "/usr/sbin/nologin", "ubuntu")
    try:
        yield
    finally:
        host.root("usermod", "--shell", "/bin/bash", "ubuntu")


def remounted(option: str) -> Fault:
    @contextmanager
    def fault(host: Host) -> Iterator[None]:
        place = f"{HOME}/.local/state" if option == "ro" else f"{HOME}/.local/share"
        host.root("install", "-d", "-o", "ubuntu", "-g", "ubuntu", place)
        host.root("mount", "--bind", place, place)
        host.root("mount", "-o", f"remount,bind,{option}", place)
        try:
            yield
        finally:
            host.root("umount", "-l", place)

    return fault


@pytest.mark.parametrize(
    ("fault", "fact", "repair"),
    [
        (requiretty, "sudo requires a terminal there", "Defaults:ubuntu !requiretty"),
        (
            nologin,
            "login shell of this account does not run commands",
            "usermod --shell /bin/sh USER",
        ),
        (
            remounted("ro"),
            f"{STATE} is on a read-only file system (mounted at {HOME}/.local/state)",
            f"mount -o remount,rw {HOME}/.local/state",
        ),
    ],
    ids=["requiretty", "nologin", "read-only"],
)
def test_problem_of_a_machine(
    hosts: Hosts, cluster: Path, fault: Fault, fact: str, repair: str
) -> None:
    with fault(hosts["robot"]):
        done = run_dora("doctor", cluster, timeout=90)
    lines = [line for line in done.stdout.splitlines() if "ubuntu@10.77.0.2" in line]
    assert any(fact in line and repair in line for line in lines), done.output
    assert (done.code == 0) is (fault is requiretty), "the cluster needs no sudo"
    run_dora("doctor", cluster, timeout=90).succeeded()


def test_home_mounted_noexec(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    """This is a problem only if dora itself is in the home."""
    own = hosts.cluster_yml(tmp_path / "own.yml")
    fact = f"{HOME}/.local/share is mounted noexec (at {HOME}/.local/share)"
    with remounted("noexec")(hosts["robot"]):
        assert fact in report(own)
        up = run_dora("cluster", "up", own, timeout=90).exited(1)
    assert f"Starting daemon on robot (ubuntu@10.77.0.2)... FAILED: {fact}" in up.stdout, up.stdout
    assert f"mount -o remount,exec {HOME}/.local/share" in up.stdout
    assert cluster.exists()
