"""The coordinator's machine is lost for good, and a standby takes over."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.cluster.clusters import (
    cluster_file,
    coordinator_process,
    daemons,
    ended_cluster,
    pids,
    ticking,
    wait_for_ticks,
)
from support.cluster.hosts import WORKSTATION, Hosts
from support.dora import run_dora
from support.waiting import wait_until

from dora_config.access import config_dir, state_dir

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    """A running cluster with both hosts as standbys."""
    path = cluster_file(hosts, tmp_path)
    file = yaml.safe_load(path.read_text())
    file["coordinator"]["standby"] = ["gpu", "robot"]
    path.write_text(yaml.safe_dump(file))
    assert workstation.is_dir()
    with ended_cluster(path):
        run_dora("cluster", "up", path).succeeded()
        yield path


def lose_coordinator() -> None:
    """Kill the coordinator, and remove all that it stored."""
    os.kill(coordinator_process(), signal.SIGKILL)
    shutil.rmtree(state_dir() / "coordinator")


def copied(to: str) -> None:
    """Wait until a standby has a copy of the last change."""

    def current() -> bool:
        rows = [line.split() for line in run_dora("cluster", "status").stdout.splitlines()]
        return any(row[:1] == [to] and row[-1] == "current" for row in rows)

    wait_until(current, what=f"a copy on {to}")


def test_standbys_take_over_one_after_the_other(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    robot, gpu = hosts["robot"], hosts["gpu"]
    flow = ticking(hosts, tmp_path, one="robot")
    run_dora("start", flow, "--name", "patrol", "--detach").succeeded()
    wait_for_ticks(robot, "one")
    before = pids(robot, "one")
    copied("gpu")
    lose_coordinator()
    refused = run_dora("cluster", "promote", "other", "-f", cluster).exited(1)
    assert '"other" is not a standby of this cluster; coordinator.standby has: gpu, robot' in (
        refused.stderr
    )
    refused = run_dora("cluster", "promote", "gpu", "-f", cluster).exited(1)
    assert "confirm with --yes" in refused.stderr
    done = run_dora("cluster", "promote", "gpu", "-f", cluster, "--yes").succeeded()
    assert 'The newest copy is on "' in done.stdout
    assert "(in the background, epoch 2, 1 dataflows)" in done.stdout
    assert f"2 of 2 daemons connected to {gpu.address}." in done.stdout
    assert "patrol" in run_dora("list").succeeded().stdout  # no file was changed
    assert pids(robot, "one") == before
    run_dora("stop", "patrol").succeeded()
    run_dora("start", flow, "--name", "patrol", "--detach").succeeded()
    wait_until(lambda: len(pids(robot, "one")) == 2, what="a start after the promotion")

    repeated = run_dora("cluster", "promote", "gpu", "-f", cluster, "--yes").succeeded()
    assert '"gpu" leads already (epoch 2)' in repeated.stdout
    gpu.root("pkill", "-KILL", "-f", "dora_coordinator.command|dora coordinator")
    up = run_dora("cluster", "up", cluster).succeeded()
    assert f"Starting coordinator on {gpu.address}:6013... OK" in up.stdout
    assert f'is on "gpu" ({gpu.address})' in up.stderr
    run_dora("cluster", "install", cluster).succeeded()  # also of the coordinator there
    wait_until(lambda: len(daemons()) == 2, what="the services")
    copied("robot")

    gpu.power_off()
    done = run_dora("cluster", "promote", "robot", "-f", cluster, "--yes").exited(0)
    assert "(as a service, epoch 3, 1 dataflows)" in done.stdout
    assert f"1 of 2 daemons connected to {robot.address}." in done.stdout
    gpu.boot()
    wait_until(lambda: len(daemons()) == 2, timeout=60, what="the daemon of the old machine")
    assert "patrol" in run_dora("list").succeeded().stdout
    assert len(pids(robot, "one")) == 2
    replaced = f"replaced by the one at {robot.address}:6013 (epoch 3)"
    journal = ("journalctl", "-u", "dora-coordinator", "--no-pager")
    wait_until(lambda: replaced in gpu.root(*journal, check=False).stdout, what="its end")
    for name in (WORKSTATION, gpu.address):
        moved = config_dir() / "moved" / f"{name}:6013"
        assert moved.read_text().startswith(f"{robot.address}:6013 robot ")
    run_dora("cluster", "uninstall", cluster).succeeded()
