"""Machines with sshd and Python only: dora is installed there and removed again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cluster.clusters import daemons, ours
from support.cluster.counting import CountingCluster, start_counting
from support.cluster.hosts import WORKSTATION, Host, Hosts, hosts_or_skip
from support.cluster.installation import Installation
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CAMERA = """
    import numpy as np
    import pyarrow as pa
    from dora import Node

    about = {"width": 320, "height": 240, "encoding": "rgb8"}
    picture = pa.array((np.arange(320 * 240 * 3) % 251).astype(np.uint8))
    node = Node()
    for event in node:
        if event["type"] == "INPUT":
            node.send_output("jpeg", picture, about)
            node.send_output("h264", picture, about)
"""
VIEWER = """
    import numpy as np
    from dora import Node

    sent = (np.arange(320 * 240 * 3) % 251).astype(np.uint8)
    for event in Node():
        if event["type"] == "INPUT":
            with open(event["id"], "w") as file:
                file.write("as sent" if np.array_equal(event["value"], sent) else "compressed")
"""
CODECS = ("jpeg", "h264")
"""Those that need a library."""


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


def test_upgrade_of_a_background_daemon_after_a_cut(
    hosts: Hosts,
    workstation: Path,
    workspace: Workspace,
    old_version: Installation,
    new_version: Installation,
    system_wheel_house: Path,
) -> None:
    assert workstation.is_dir()
    robot = hosts["robot"]
    file = hosts.cluster_yml(workspace.path / "cluster.yml")
    cluster = CountingCluster(hosts, file, system_wheel_house)
    try:
        cluster.run(old_version, "up")
        start_counting(workspace, old_version, robot)
        robot.cut()
        printed = cluster.run(new_version, "upgrade", "--keep-going", code=1)
        assert "0/1 succeeded." in printed
        robot.mend()
        printed = cluster.run(new_version, "upgrade", "--keep-going")
        assert "1/1 succeeded." in printed, printed
        assert "Restart daemon... OK" in printed
        cluster.require_whole(robot)
        link = robot.path("/home/ubuntu/.local/share/dora/versions/current")
        assert link.readlink().name.startswith("0.2.0-py")
        table = new_version.run("cluster", "status", "--coordinator-addr", WORKSTATION).stdout
        assert "0.2.0 (runs 0.1.0)" in table
        require_codecs(workspace, new_version, robot)
    finally:
        new_version.run("cluster", "down", cluster.file, timeout=120)
        robot.root("rm", "-rf", "/home/ubuntu/_work", "/home/ubuntu/.local/share/dora")


@contextmanager
def own_daemon(version: Installation, folder: Path) -> Iterator[None]:
    """A daemon of this computer, `station`."""
    words = [
        str(version.dora),
        "daemon",
        "--machine-id",
        "station",
        "--coordinator-addr",
        WORKSTATION,
    ]
    with (folder / "daemon.txt").open("wb") as printed:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed)
    try:
        wait_until(lambda: "station" in daemons(), what="the daemon of this computer")
        yield
    finally:
        process.terminate()
        process.wait(30)


def require_codecs(workspace: Workspace, version: Installation, host: Host) -> None:
    """Compressed pictures of this computer arrive on the host."""
    workspace.node("codecs/camera", CAMERA)
    workspace.node("codecs/viewer", VIEWER)
    camera = {
        "id": "camera",
        "path": "camera.py",
        "inputs": {"tick": "dora/timer/millis/50"},
        "outputs": list(CODECS),
        "deploy": {"machine": "station"},
    }
    viewer = {
        "id": "viewer",
        "path": "viewer.py",
        "inputs": {codec: {"source": f"camera/{codec}", "compress": codec} for codec in CODECS},
        "deploy": {"machine": host.name, "distribute": "http"},
    }
    path = workspace.dataflow({"nodes": [camera, viewer]}, "codecs/dataflow.yml")
    with own_daemon(version, workspace.path):
        done = version.run("start", path, "--detach", "--name", "codecs")
        assert done.returncode == 0, done.stdout + done.stderr

        def arrived() -> list[str]:
            found = host.path("/home/ubuntu/_work").glob("*/*")
            return sorted(
                one.name for one in found if one.name in CODECS if one.read_text() == "compressed"
            )

        wait_until(lambda: arrived() == sorted(CODECS), what=lambda: f"pictures: {arrived()}")
        done = version.run("stop", "codecs")
        assert done.returncode == 0, done.stdout + done.stderr
