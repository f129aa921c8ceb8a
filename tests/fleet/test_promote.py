"""A standby takes over, because the coordinator's machine is lost or as planned; and the way back.

Also what machines do that are cut off, or that forge claims.
"""

from __future__ import annotations

import json
import os
import re
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
from support.cluster.hosts import WORKSTATION, Host, Hosts
from support.dora import DORA, Completed, run_dora
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


def standbys() -> dict[str, list[str]]:
    """Return the rows of `dora cluster status` about standbys, by machine."""
    lines = run_dora("cluster", "status").stdout.partition("STANDBY ")[2].splitlines()[1:]
    rows = [line.split() for line in lines if ":6013" in line]
    return {row[0]: row[1:] for row in rows}


def copied(to: str) -> None:
    """Wait until a standby has a copy of the last change."""
    wait_until(lambda: standbys().get(to, [""])[-1] == "current", what=f"a copy on {to}")


def promote(cluster: Path, *words: str) -> Completed:
    return run_dora("cluster", "promote", *words, "--file", cluster, "--yes")


def coordinator_folders(host: Host) -> list[str]:
    """Return files of coordinators and tokens of clusters on a host."""
    return [
        name
        for name in host.files()
        if "/dora/coordinator" in name or "dora-coordinator" in name or "/dora/tokens" in name
    ]


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
    refused = run_dora("cluster", "promote", "other", "--file", cluster).exited(1)
    assert '"other" is not a standby of this cluster; coordinator.standby has: gpu, robot' in (
        refused.stderr
    )
    refused = run_dora("cluster", "promote", "gpu", "--file", cluster).exited(1)
    assert "confirm with --yes" in refused.stderr
    done = run_dora("cluster", "promote", "gpu", "--file", cluster, "--yes").succeeded()
    assert 'The newest copy is on "' in done.stdout
    assert "(in the background, epoch 2, 1 dataflows)" in done.stdout
    assert f"2 of 2 daemons connected to {gpu.address}." in done.stdout
    assert "patrol" in run_dora("list").succeeded().stdout  # no file was changed
    assert pids(robot, "one") == before
    run_dora("stop", "patrol").succeeded()
    run_dora("start", flow, "--name", "patrol", "--detach").succeeded()
    wait_until(lambda: len(pids(robot, "one")) == 2, what="a start after the promotion")

    repeated = run_dora("cluster", "promote", "gpu", "--file", cluster, "--yes").succeeded()
    assert '"gpu" leads already (epoch 2)' in repeated.stdout
    gpu.root("pkill", "-KILL", "-f", "dora_coordinator.command|dora coordinator")
    up = run_dora("cluster", "up", cluster).succeeded()
    assert f"Starting coordinator on {gpu.address}:6013... OK" in up.stdout
    assert f'is on "gpu" ({gpu.address})' in up.stderr
    run_dora("cluster", "install", cluster).succeeded()  # also of the coordinator there
    wait_until(lambda: len(daemons()) == 2, what="the services")
    copied("robot")

    gpu.power_off()
    done = promote(cluster, "robot").exited(0)
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
    assert list(standbys()) == ["gpu"], "the machine of the former coordinator"
    copied("gpu")

    done = promote(cluster, "gpu").succeeded()  # planned: the coordinator on the robot answers
    assert f"The coordinator at {robot.address}:6013 answers, and its present state is used" in (
        done.stdout
    )
    assert "(as a service, epoch 4, 1 dataflows)" in done.stdout
    assert list(standbys()) == ["robot"]
    done = promote(cluster, "--back").succeeded()
    assert f"2 of 2 daemons connected to {WORKSTATION}." in done.stdout
    assert not list((config_dir() / "moved").iterdir())
    assert "patrol" in run_dora("list", "--coordinator-addr", WORKSTATION).succeeded().stdout
    copied("gpu")
    assert list(standbys()) == ["gpu", "robot"]
    assert len(pids(robot, "one")) == 2, "no node was restarted"
    run_dora("cluster", "uninstall", cluster).succeeded()
    assert coordinator_folders(gpu) == coordinator_folders(robot) == []


def test_a_standby_that_no_other_machine_reaches_is_refused(hosts: Hosts, cluster: Path) -> None:
    hosts.partition("gpu", "robot")
    try:
        copied("gpu")
        refused = promote(cluster, "gpu").exited(1)
        address = f"{hosts['gpu'].address}:6013"
        assert f"no other machine reaches {address} (robot)" in refused.stderr
        assert "nothing was changed" in refused.stderr
        assert not (config_dir() / "moved").exists()
        assert len(daemons()) == 2
        assert coordinator_folders(hosts["gpu"]) == []
    finally:
        hosts.heal()
    text = cluster.read_text()
    file = yaml.safe_load(text)
    next(one for one in file["machines"] if one["id"] == "gpu")["zenoh_addr"] = "192.0.2.1"
    cluster.write_text(yaml.safe_dump(file))
    refused = promote(cluster, "gpu").exited(1)
    assert "this computer does not reach 192.0.2.1:6013" in refused.stderr
    cluster.write_text(text)


def test_a_coordinator_that_does_not_start_is_undone(hosts: Hosts, cluster: Path) -> None:
    gpu = hosts["gpu"]
    copied("gpu")
    lose_coordinator()
    dora = Path(yaml.safe_load(cluster.read_text())["machines"][0]["dora"])
    broken = "/usr/local/bin/dora-broken"
    gpu.path(broken).write_text(
        f'#!/bin/sh\ncase "$*" in *"coordinator --interface"*) exit 3;; esac\nexec "{dora}" "$@"\n'
    )
    gpu.path(broken).chmod(0o755)
    text = cluster.read_text()
    file = yaml.safe_load(text)
    for one in file["machines"]:
        if one["id"] == "gpu":
            one["dora"] = broken
    cluster.write_text(yaml.safe_dump(file))
    refused = promote(cluster, "gpu").exited(1)
    assert "exit code 3" in refused.stderr
    assert coordinator_folders(gpu) == []
    assert not (config_dir() / "moved").exists(), "no command is redirected to it"
    cluster.write_text(text)
    promote(cluster, "robot").succeeded()
    assert len(daemons()) == 2


def test_standbys_are_applied(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    file = yaml.safe_load(cluster.read_text())
    file["dataflows"] = {"patrol": {"file": str(ticking(hosts, tmp_path, one="robot"))}}
    cluster.write_text(yaml.safe_dump(file))
    run_dora("cluster", "apply", cluster, "--yes").succeeded()
    assert "no changes" in run_dora("cluster", "diff", cluster).succeeded().stdout
    file = yaml.safe_load(cluster.read_text())
    file["coordinator"]["standby"] = ["robot"]
    cluster.write_text(yaml.safe_dump(file))
    shown = run_dora("cluster", "diff", cluster).exited(2)
    assert "coordinator: standby: gpu, robot -> robot" in shown.stdout
    assert list(standbys()) == ["gpu", "robot"]
    run_dora("cluster", "apply", cluster, "--yes").succeeded()
    copied("robot")
    assert list(standbys()) == ["robot"]
    assert "no changes" in run_dora("cluster", "diff", cluster).succeeded().stdout


def test_a_store_that_is_newer_than_each_copy_is_used(
    hosts: Hosts, cluster: Path, tmp_path: Path
) -> None:
    robot, gpu = hosts["robot"], hosts["gpu"]
    promote(cluster, "gpu").succeeded()
    copied("robot")
    flow = ticking(hosts, tmp_path, two="gpu")
    robot.power_off()
    run_dora("start", flow, "--name", "late", "--detach").succeeded()
    wait_for_ticks(gpu, "two")
    gpu.root("pkill", "-KILL", "-f", "dora_coordinator.command|dora coordinator")
    robot.boot()
    done = promote(cluster, "robot").exited(1)  # its daemon does not start with the machine
    assert """The coordinator's own store on "gpu" has change """ in done.stdout
    assert """the newest copy, on "robot", has change """ in done.stdout
    assert "The store is used." in done.stdout
    assert "late" in run_dora("list").succeeded().stdout
    run_dora("cluster", "up", cluster).succeeded()
    run_dora("stop", "late").succeeded()


def test_a_robot_that_forges_a_claim_ends_nothing(hosts: Hosts, cluster: Path) -> None:
    """Also while a standby takes over, which nothing may prevent."""
    robot = hosts["robot"]
    copied("gpu")
    folder = robot.path("/home/ubuntu/.local/state/dora/daemon/robot")
    copied("robot")

    def forge() -> None:
        known = folder / "coordinators.json"
        content = json.loads(known.read_text())
        place = f"{robot.address}:6013"
        content["claim"] |= {"epoch": 1 << 62, "address": place, "machine": "robot"}
        known.write_text(json.dumps(content))
        copy = folder / "coordinator-copy.json"
        copy.write_text(json.dumps(json.loads(copy.read_text()) | {"epoch": 9, "number": 1 << 62}))

    forge()
    robot.root("pkill", "-KILL", "-f", "dora daemon")
    run_dora("cluster", "up", cluster).succeeded()
    assert len(daemons()) == 2
    lose_coordinator()
    forge()
    done = promote(cluster, "gpu").succeeded()
    assert '"robot" has a claim of the coordinator at' in done.stderr
    assert "is not signed by the authority of this cluster" in done.stderr
    assert 'ignored the copy on "robot": no coordinator of this cluster made it' in done.stderr
    assert "epoch 2" in done.stdout
    assert len(daemons()) == 2


def test_an_empty_store_leads_again(hosts: Hosts, cluster: Path) -> None:
    """Also with the record of a successor: its machines are then those of this coordinator."""
    copied("gpu")
    promote(cluster, "gpu").succeeded()
    folder = hosts["gpu"].path("/home/ubuntu/.local/state/dora/coordinator")
    run_dora("cluster", "down", cluster).succeeded()
    assert not (folder / "store.sqlite3.old").exists()
    run_dora("cluster", "up", cluster, "--recreate-store").succeeded()
    assert (folder / "store.sqlite3.old").exists()
    assert len(daemons()) == 2


def test_a_service_returns_to_the_machine_in_the_file(
    hosts: Hosts, workstation: Path, tmp_path: Path
) -> None:
    """Its replaced coordinator is stopped there, and starts again with the present state."""
    robot, gpu = hosts["robot"], hosts["gpu"]
    path = cluster_file(hosts, tmp_path)
    file = yaml.safe_load(path.read_text())
    place = {"addr": gpu.address, "host": gpu.address, "user": "ubuntu", "dora": str(DORA)}
    path.write_text(yaml.safe_dump(file | {"coordinator": place | {"standby": ["robot"]}}))
    there = ("--coordinator-addr", gpu.address)
    flow = ticking(hosts, tmp_path, three="robot")
    with ended_cluster(path, installed=True):
        run_dora("cluster", "install", path).succeeded()
        run_dora("start", flow, "--name", "patrol", "--detach", *there).succeeded()
        wait_for_ticks(robot, "three")
        done = promote(path, "robot").succeeded()
        assert f"The coordinator at {gpu.address}:6013 answers" in done.stdout
        # machines may have seen other epochs of this authority in earlier tests
        found = re.search(r"\(as a service, epoch (\d+), 1 dataflows\)", done.stdout)
        assert found is not None, done.stdout
        assert "2 of 2 daemons connected" in promote(path, "--back").succeeded().stdout
        assert "active" in gpu.root("systemctl", "is-active", "dora-coordinator").stdout
        listed = run_dora("list", *there).succeeded()
        assert "patrol" in listed.stdout
        assert "replaced" not in listed.stderr
        assert len(pids(robot, "three")) == 1
        back = promote(path, "--back").succeeded().stdout
        assert f"leads already (epoch {int(found[1]) + 1})" in back
        run_dora("stop", "patrol", *there).succeeded()
