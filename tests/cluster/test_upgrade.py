"""Upgrades of real hosts with a counting dataflow: no message is lost or repeated."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cluster.hosts import WORKSTATION, Host, Hosts, hosts_or_skip
from support.cluster.installation import Installation
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

SENDER = """
    from dora import Node
    import pyarrow as pa

    number = 0
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("number", pa.array([number]))
            number += 1
"""

COUNTER = """
    import os
    from dora import Node

    with open("colour", "w") as file:
        file.write(os.environ.get("COLOUR", "none"))
    with open("numbers", "a") as file:
        for event in Node():
            if event["type"] == "INPUT":
                print(event["value"][0].as_py(), file=file, flush=True)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two bare hosts: an operating system with Python only."""
    yield from hosts_or_skip("robot", "gpu", bare=True)


Popen = subprocess.Popen[bytes]


class CountingCluster:
    """A cluster with a counting dataflow."""

    def __init__(self, hosts: Hosts, file: Path, wheels: Path) -> None:
        self.hosts = hosts
        self.file = file
        self.wheels = wheels

    def run(self, version: Installation, *words: str, code: int = 0) -> str:
        """Run ``dora cluster WORDS FILE`` of a version; return its output."""
        offline = (
            ["--offline", str(self.wheels)] if words[0] in ("install", "upgrade", "up") else []
        )
        done = version.run("cluster", *words, self.file, *offline, timeout=300)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def disturb(
        self, version: Installation, *words: str, after: str, by: Callable[[Popen], None]
    ) -> tuple[int, str]:
        """Like ``run``, but call ``by`` after the output ``after``; returns also the exit code."""
        printed = self.file.with_name("output.txt")
        with printed.open("wb") as file:
            process = subprocess.Popen(
                [version.dora, "cluster", *words, self.file, "--offline", self.wheels],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
            try:
                wait_until(
                    lambda: after in printed.read_text(), timeout=200, what=printed.read_text
                )
                by(process)
                code = process.wait(200)
            finally:
                process.kill()
                process.wait()
        return code, printed.read_text()

    def wrote(self, host: Host, name: str) -> str:
        """A file of the counting node."""
        (found,) = host.path("/home/ubuntu/_work").glob(f"*/{name}")
        return found.read_text()

    def numbers(self, host: Host) -> list[int]:
        return [int(line) for line in self.wrote(host, "numbers").split()]

    def require_whole(self, host: Host) -> None:
        """Each number so far arrived once, and more arrive."""
        before = len(self.numbers(host))
        wait_until(lambda: len(self.numbers(host)) > before + 20, what="numbers to go on")
        numbers = self.numbers(host)
        assert numbers == list(range(len(numbers)))


def interrupt(process: Popen) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)


def version_of(host: Host) -> str:
    return host.root("/usr/local/bin/dora", "--version").stdout.strip()


@contextmanager
def counting_cluster(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    version: Installation,
    wheels: Path,
    **fields: Mapping[str, Any],
) -> Iterator[CountingCluster]:
    hosts.write_ssh(home)
    with hosts.workstation():
        cluster = CountingCluster(
            hosts, hosts.cluster_yml(workspace.path / "cluster.yml", **fields), wheels
        )
        cluster.run(version, "install")
        cluster.run(version, "up")
        try:
            for host in hosts:
                start_counting(workspace, version, host)
            yield cluster
        finally:
            version.run("cluster", "down", cluster.file, timeout=120)
            cluster.run(version, "uninstall")
            for host in hosts:
                host.root("rm", "-rf", "/home/ubuntu/_work")


def start_counting(workspace: Workspace, version: Installation, host: Host) -> None:
    deploy = {"machine": host.name, "distribute": "http"}
    workspace.node(f"{host.name}/sender", SENDER)
    workspace.node(f"{host.name}/counter", COUNTER)
    nodes: list[dict[str, object]] = [
        {
            "id": "sender",
            "path": "sender.py",
            "inputs": {"tick": "dora/timer/millis/10"},
            "outputs": ["number"],
            "deploy": deploy,
        },
        {
            "id": "counter",
            "path": "counter.py",
            "inputs": {"number": {"source": "sender/number", "queue_size": 1000}},
            "deploy": deploy,
        },
    ]
    path = workspace.dataflow({"nodes": nodes}, f"{host.name}/dataflow.yml")
    done = version.run("start", path, "--detach", "--name", f"count-{host.name}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_upgrade_and_rollback_with_a_running_dataflow(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    old_version: Installation,
    new_version: Installation,
    system_wheel_house: Path,
) -> None:
    """With failures in between: no sudo, a full disk, a cut; uninstall removes everything."""
    before = {host.name: host.files() for host in hosts}
    robot = hosts["robot"]
    settings = {"prefix": "/srv/dora", "env": {"COLOUR": 'a "deep" $RED'}}
    with counting_cluster(
        hosts, home, workspace, old_version, system_wheel_house, robot=settings
    ) as cluster:
        assert {version_of(host) for host in hosts} == {"dora 0.1.0"}
        assert cluster.wrote(robot, "colour") == 'a "deep" $RED'
        assert cluster.wrote(hosts["gpu"], "colour") == "none"
        with no_sudo(robot):
            printed = cluster.run(new_version, "upgrade", code=1)
        assert "dora 0.1.0 -> 0.2.0... OK (store copied to" in printed
        assert "FAILED: sudo asks ubuntu for a password" in printed
        with no_room(robot):
            printed = cluster.run(new_version, "upgrade", code=1)
        assert "the disk of /home/ubuntu/.cache/dora/archives has " in printed
        cluster.require_whole(robot)
        assert version_of(robot) == "dora 0.1.0"
        code, printed = cluster.disturb(
            new_version,
            "upgrade",
            after="Restart service... OK",
            by=lambda _process: cut_for_a_while(robot),
        )
        assert code == 0, printed
        assert "2/2 succeeded." in printed, printed
        assert printed.count("Its dataflows... OK (1 go on, 2 nodes)") == 2
        for host in hosts:
            assert version_of(host) == "dora 0.2.0"
            cluster.require_whole(host)
            prefix = "/srv/dora" if host is robot else "/opt/dora"
            trees = {path.name for path in host.path(prefix).iterdir()}
            assert {name[:5] for name in trees} == {"0.1.0", "0.2.0", "curre", "previ"}
        again = cluster.run(new_version, "upgrade")
        assert again.count("It runs that version already") == 2
        printed = cluster.run(new_version, "rollback")
        assert "Returning to dora 0.1.0: robot, gpu, the coordinator\n" in printed
        assert "2/2 succeeded." in printed
        assert "  dora 0.2.0 -> 0.1.0... OK" in printed
        again = cluster.run(new_version, "rollback")
        assert "The last upgrade was undone already" in again
        require_everywhere(cluster, "0.1.0")
        cluster.run(new_version, "upgrade", "--machine", "robot")
        printed = cluster.run(new_version, "rollback")
        assert "Returning to dora 0.1.0: robot, the coordinator\n" in printed
        assert "Left as they are: gpu (0.1.0)\n" in printed
        require_everywhere(cluster, "0.1.0")
        printed = cluster.run(new_version, "rollback", "--to", "0.3.0", code=1)
        assert "dora 0.3.0 is not on every machine (robot has 0.1.0, 0.2.0; gpu has" in printed
        printed = cluster.run(new_version, "rollback", "--to", "0.2.0", "--machine", "robot")
        assert version_of(robot) == "dora 0.2.0"
        cluster.require_whole(robot)
    assert {host.name: host.files() for host in hosts} == before


def require_everywhere(cluster: CountingCluster, version: str) -> None:
    for host in cluster.hosts:
        assert version_of(host) == f"dora {version}"
        cluster.require_whole(host)


@contextmanager
def no_sudo(host: Host) -> Iterator[None]:
    """Revoke the user's sudo for the block."""
    host.root("mv", "/etc/sudoers.d/dora-tests", "/root/dora-tests")
    try:
        yield
    finally:
        host.root("mv", "/root/dora-tests", "/etc/sudoers.d/dora-tests")


@contextmanager
def no_room(host: Host) -> Iterator[None]:
    """Make the folder of transfers too small for the block."""
    place = "/home/ubuntu/.cache"
    host.root("mkdir", "-p", place)
    host.root("mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", place)
    try:
        yield
    finally:
        host.root("umount", place)
        host.root("rmdir", place)


def cut_for_a_while(host: Host) -> None:
    """Longer than a daemon may be silent, shorter than an upgrade waits."""
    host.cut()
    time.sleep(3)
    host.mend()


def test_broken_version_is_replaced_by_the_old_one(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    old_version: Installation,
    disconnected_version: Installation,
    system_wheel_house: Path,
) -> None:
    """Its self-test passes, but its daemon never connects; also with Ctrl-C during the wait."""
    with counting_cluster(hosts, home, workspace, old_version, system_wheel_house) as cluster:
        code, printed = cluster.disturb(
            disconnected_version, "upgrade", after="Restart service... OK", by=interrupt
        )
        assert code != 0
        assert "Interrupted: returning to 0.1.0" in printed
        assert "Return to 0.1.0... OK" in printed, printed
        assert "What runs now:\n  coordinator  0.4.0\n  robot        0.1.0\n" in printed
        assert version_of(hosts["robot"]) == "dora 0.1.0"
        cluster.require_whole(hosts["robot"])
        printed = cluster.run(disconnected_version, "upgrade", code=1)
        assert "Waiting for reconnect... FAILED" in printed
        assert "dora 0.4.0 did not connect within 30 s; its last lines:" in printed
        assert "Return to 0.1.0... OK" in printed
        assert "Stopped there; not touched: gpu" in printed
        state = "  coordinator  0.4.0\n  robot        0.1.0\n  gpu          0.1.0\n"
        assert f"What runs now:\n{state}" in printed
        assert "0/2 succeeded." in printed
        for host in hosts:
            assert version_of(host) == "dora 0.1.0"
            cluster.require_whole(host)


def test_upgrade_of_background_daemons_after_a_cut(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    old_version: Installation,
    new_version: Installation,
    system_wheel_house: Path,
) -> None:
    hosts.write_ssh(home)
    with hosts.workstation():
        cluster = CountingCluster(
            hosts, hosts.cluster_yml(workspace.path / "cluster.yml"), system_wheel_house
        )
        try:
            cluster.run(old_version, "up")
            for host in hosts:
                start_counting(workspace, old_version, host)
            hosts["robot"].cut()
            printed = cluster.run(
                new_version, "upgrade", "--keep-going", "--machine", "robot", code=1
            )
            assert "0/1 succeeded." in printed
            hosts["robot"].mend()
            printed = cluster.run(new_version, "upgrade", "--keep-going")
            assert "2/2 succeeded." in printed, printed
            assert printed.count("Restart daemon... OK") == 2
            for host in hosts:
                cluster.require_whole(host)
                link = host.path("/home/ubuntu/.local/share/dora/versions/current")
                assert link.readlink().name.startswith("0.2.0-py")
            table = new_version.run("cluster", "status", "--coordinator-addr", WORKSTATION).stdout
            assert table.count("0.2.0 (runs 0.1.0)") == 2, table
        finally:
            new_version.run("cluster", "down", cluster.file, timeout=120)
            for host in hosts:
                host.root("rm", "-rf", "/home/ubuntu/_work", "/home/ubuntu/.local/share/dora")


def test_connection_is_closed_during_the_restart(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    old_version: Installation,
    new_version: Installation,
    system_wheel_house: Path,
) -> None:
    """The machine is restored or upgraded; the same command then succeeds."""
    robot = hosts["robot"]
    with counting_cluster(hosts, home, workspace, old_version, system_wheel_house) as cluster:
        code, printed = cluster.disturb(
            new_version,
            "upgrade",
            after="Put dora 0.2.0 there and test it... OK",
            by=lambda _process: close_connections(robot),
        )
        assert "EOFError" not in printed
        if code:
            assert "FAILED: the connection broke: " in printed, printed
            assert "What runs now:\n  coordinator  0.2.0\n  robot        0.1.0\n" in printed, (
                printed
            )
        assert "succeeded." in cluster.run(new_version, "upgrade")
        require_everywhere(cluster, "0.2.0")
        cluster.run(new_version, "rollback")
        require_everywhere(cluster, "0.1.0")


def close_connections(host: Host) -> None:
    """Kill the sshd processes that serve connections."""
    listed = host.root("ps", "-eo", "pid=,args=").stdout.splitlines()
    pids = [line.split()[0] for line in listed if "sshd: ubuntu" in line or "sshd-session" in line]
    host.root("kill", "-KILL", *pids, check=False)
