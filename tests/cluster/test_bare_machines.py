"""Machines with sshd and Python only: dora is installed there and removed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.clusters import daemons, ours
from support.cluster.hosts import Hosts, hosts_or_skip
from support.cluster.installation import Installation

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    yield from hosts_or_skip("robot", bare=True)


def test_installation_is_removed_completely(
    hosts: Hosts,
    workstation: Path,
    tmp_path: Path,
    old_version: Installation,
    system_wheel_house: Path,
) -> None:
    path = hosts.cluster_yml(tmp_path / "cluster.yml")
    robot = hosts["robot"]
    before = robot.files()

    def dora(*words: str | Path, code: int = 0) -> str:
        done = old_version.run("cluster", *words, timeout=200)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    assert "robot (ubuntu@10.77.0.2)... OK" in dora("up", path, "--offline", system_wheel_house)
    assert set(daemons()) == {"robot"}
    link = robot.path("/home/ubuntu/.local/bin/dora")
    assert link.is_symlink()
    dora("down")
    assert ours(robot) == []
    assert link.is_symlink()
    assert "runs already" not in dora("up", path)  # uses the installed version, without an archive
    dora("down", "--purge")
    assert robot.files() == before

    assert "1/1 succeeded." in dora("install", path, "--offline", system_wheel_house)
    assert robot.root("systemctl", "is-active", "dora-daemon-robot").stdout == "active\n"
    assert robot.path("/usr/local/bin/dora").is_symlink()
    dora("up", path)
    assert set(daemons()) == {"robot"}
    dora("down")
    dora("uninstall", path)
    assert robot.files() == before
