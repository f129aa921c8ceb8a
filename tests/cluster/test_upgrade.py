"""Upgrades of real hosts under a dataflow that counts: nothing is lost, nothing comes twice."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.hosts import DESK, Host, Hosts, hosts_or_skip
from support.installation import Installation
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
    from dora import Node

    with open("numbers", "a") as file:
        for event in Node():
            if event["type"] == "INPUT":
                print(event["value"][0].as_py(), file=file, flush=True)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two bare hosts, which have an operating system with Python and nothing else."""
    yield from hosts_or_skip("robot", "gpu", bare=True)


class Fleet:
    """A cluster whose daemons are services of one version, under a dataflow that counts."""

    def __init__(self, hosts: Hosts, file: Path, wheels: Path) -> None:
        self.hosts = hosts
        self.file = file
        self.wheels = wheels

    def run(self, version: Installation, *words: str, code: int = 0) -> str:
        """``dora cluster WORDS FILE`` of a version; what it printed."""
        offline = (
            ["--offline", str(self.wheels)] if words[0] in ("install", "upgrade", "up") else []
        )
        done = version.run("cluster", *words, self.file, *offline, timeout=300)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def interrupt(self, version: Installation, *words: str, after: str) -> str:
        """``run``, but with Ctrl-C as soon as it has printed ``after``."""
        said = self.file.with_name("interrupted.txt")
        with said.open("wb") as file:
            process = subprocess.Popen(
                [version.dora, "cluster", *words, self.file, "--offline", self.wheels],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
            try:
                wait_until(lambda: after in said.read_text(), timeout=200, what=said.read_text)
                process.send_signal(signal.SIGINT)
                assert process.wait(90) != 0
            finally:
                process.kill()
                process.wait()
        return said.read_text()

    def numbers(self, host: Host) -> list[int]:
        (found,) = host.path("/home/ubuntu/_work").glob("*/numbers")
        return [int(line) for line in found.read_text().split()]

    def require_whole(self, host: Host) -> None:
        """All numbers so far, each once, and more are coming."""
        before = len(self.numbers(host))
        wait_until(lambda: len(self.numbers(host)) > before + 20, what="numbers to go on")
        numbers = self.numbers(host)
        assert numbers == list(range(len(numbers)))


def version_of(host: Host) -> str:
    return host.root("/usr/local/bin/dora", "--version").stdout.strip()


@contextmanager
def counting_fleet(
    hosts: Hosts, home: Path, workspace: Workspace, version: Installation, wheels: Path
) -> Iterator[Fleet]:
    hosts.write_ssh(home)
    with hosts.desk():
        fleet = Fleet(hosts, hosts.cluster_yml(workspace.path / "cluster.yml"), wheels)
        fleet.run(version, "install")
        fleet.run(version, "up")
        try:
            for host in hosts:
                start_counting(workspace, version, host)
            yield fleet
        finally:
            version.run("cluster", "down", fleet.file, timeout=120)
            fleet.run(version, "uninstall")
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


def test_old_to_new_and_back_under_a_running_dataflow(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    old_version: Installation,
    new_version: Installation,
    system_wheel_house: Path,
) -> None:
    with counting_fleet(hosts, home, workspace, old_version, system_wheel_house) as fleet:
        assert {version_of(host) for host in hosts} == {"dora 0.1.0"}
        said = fleet.run(new_version, "upgrade")
        assert "2/2 succeeded." in said, said
        assert "dora 0.1.0 -> 0.2.0... OK (store copied to" in said
        assert said.count("Its dataflows... OK (1 go on, 2 nodes)") == 2
        for host in hosts:
            assert version_of(host) == "dora 0.2.0"
            fleet.require_whole(host)
            trees = {path.name for path in host.path("/opt/dora").iterdir()}
            assert {name[:5] for name in trees} == {"0.1.0", "0.2.0", "curre", "previ"}
        again = fleet.run(new_version, "upgrade")
        assert again.count("It runs that version already") == 2
        said = fleet.run(new_version, "rollback")
        assert "2/2 succeeded." in said
        for host in hosts:
            assert version_of(host) == "dora 0.1.0"
            fleet.require_whole(host)


def test_a_version_that_does_not_work_is_taken_back(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    old_version: Installation,
    mute_version: Installation,
    system_wheel_house: Path,
) -> None:
    """It passes its self-test, but its daemon never connects; and Ctrl-C while it is waited for."""
    with counting_fleet(hosts, home, workspace, old_version, system_wheel_house) as fleet:
        said = fleet.interrupt(mute_version, "upgrade", after="Restart service... OK")
        assert "Interrupted: returning to 0.1.0" in said
        assert "Return to 0.1.0... OK" in said, said
        assert version_of(hosts["robot"]) == "dora 0.1.0"
        fleet.require_whole(hosts["robot"])
        said = fleet.run(mute_version, "upgrade", code=1)
        assert "Waiting for reconnect... FAILED" in said
        assert "dora 0.4.0 did not connect within 30 s; its last lines:" in said
        assert "Return to 0.1.0... OK" in said
        assert "Stopped there; not touched: gpu" in said
        assert "0/2 succeeded." in said
        for host in hosts:
            assert version_of(host) == "dora 0.1.0"
            fleet.require_whole(host)


def test_daemons_of_up_are_upgraded_too_and_a_machine_that_was_cut_off_is_made_up_for(
    hosts: Hosts,
    home: Path,
    workspace: Workspace,
    old_version: Installation,
    new_version: Installation,
    system_wheel_house: Path,
) -> None:
    hosts.write_ssh(home)
    with hosts.desk():
        fleet = Fleet(hosts, hosts.cluster_yml(workspace.path / "cluster.yml"), system_wheel_house)
        try:
            fleet.run(old_version, "up")
            for host in hosts:
                start_counting(workspace, old_version, host)
            hosts["robot"].cut()
            said = fleet.run(new_version, "upgrade", "--keep-going", "--machine", "robot", code=1)
            assert "0/1 succeeded." in said
            hosts["robot"].mend()
            said = fleet.run(new_version, "upgrade", "--keep-going")
            assert "2/2 succeeded." in said, said
            assert said.count("Restart daemon... OK") == 2
            for host in hosts:
                fleet.require_whole(host)
                link = host.path("/home/ubuntu/.local/share/dora/versions/current")
                assert link.readlink().name.startswith("0.2.0-py")
            table = new_version.run("cluster", "status", "--coordinator-addr", DESK).stdout
            assert table.count("0.2.0 (runs 0.1.0)") == 2, table
        finally:
            new_version.run("cluster", "down", fleet.file, timeout=120)
            for host in hosts:
                host.root("rm", "-rf", "/home/ubuntu/_work", "/home/ubuntu/.local/share/dora")
