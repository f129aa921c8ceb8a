"""Two operators and the same machines: takeovers need an option, commands exclude each other."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.cluster.clusters import (
    cluster_file,
    daemons,
    ended_cluster,
    forget_ticks,
    ours,
    pids,
    running,
    ticking,
    wait_for_ticks,
)
from support.cluster.hosts import WORKSTATION, Host, Hosts
from support.dora import Completed, RunningDora, run_dora, running_dora
from support.homes import isolated_environment, short_directory
from support.waiting import wait_until

from dora_config.access_token import Token

pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOKEN = "/home/ubuntu/.local/state/dora/daemon/robot/given/dora-token"
Environment = Mapping[str, str]


@pytest.fixture
def cluster(hosts: Hosts, workstation: Path, tmp_path: Path) -> Iterator[Path]:
    """The cluster file of the first operator."""
    forget_ticks(hosts)
    path = cluster_file(hosts, tmp_path)
    with ended_cluster(path):
        yield path


@pytest.fixture
def bob(hosts: Hosts, workstation: Path) -> Iterator[Environment]:
    """The environment of a second operator, with another token."""
    with short_directory() as home:
        hosts.write_ssh(home)
        environment = isolated_environment(home, dict(os.environ))
        (home / "run").mkdir(mode=0o700)
        (home / "config" / "dora").mkdir(parents=True, mode=0o700)
        token = home / "config" / "dora" / "token"
        token.write_text("b" * 64)
        token.chmod(0o600)
        yield environment


def with_port(path: Path, port: int) -> Path:
    """The same file with another port of the coordinator."""
    text = path.read_text()
    assert f"addr: {WORKSTATION}" in text
    changed = path.with_name(f"port-{port}.yml")
    changed.write_text(text.replace(f"addr: {WORKSTATION}", f"addr: {WORKSTATION}\n  port: {port}"))
    return changed


def refused(done: Completed) -> str:
    text = done.exited(1).output
    assert "robot (ubuntu@10.77.0.2) is in use by another cluster:" in text
    assert "gpu (ubuntu@10.77.0.3) is in use by another cluster:" in text
    assert "nothing was changed on any machine; --take-over" in text
    return text


def test_machine_of_another_cluster_is_refused_then_taken_over(
    hosts: Hosts, cluster: Path, bob: Environment, tmp_path: Path
) -> None:
    robot = hosts["robot"]
    run_dora("cluster", "up", cluster).succeeded()
    run_dora(
        "start", ticking(hosts, tmp_path, one="robot"), "--name", "my-app", "--detach"
    ).succeeded()
    wait_for_ticks(robot, "one")
    before = {host.name: ours(host) for host in hosts}, robot.path(TOKEN).read_text()
    text = refused(run_dora("cluster", "install", cluster, env=bob))
    assert f"coordinator: {WORKSTATION}:6013, with another token than this account's" in text
    assert f"set up by: root@{os.uname().nodename} from {cluster}" in text
    assert "dataflows: my-app" in text
    assert before[1].strip() not in text
    other = with_port(cluster, 6014)
    for operator in (bob, None):  # also for the same operator
        text = refused(run_dora("cluster", "up", other, env=operator))
        assert f"coordinator: {WORKSTATION}:6013 ({other} has {WORKSTATION}:6014)" in text
    refused(run_dora("cluster", "uninstall", other))
    refused(run_dora("cluster", "upgrade", cluster, env=bob))
    assert ({host.name: ours(host) for host in hosts}, robot.path(TOKEN).read_text()) == before
    assert not any(host.path("/etc/dora-daemon").exists() for host in hosts)
    assert set(daemons()) == {"robot", "gpu"}
    assert len(running()) == 1
    changed = cluster_file(hosts, tmp_path, robot={"labels": {"role": "arm"}})
    text = run_dora("cluster", "up", changed).succeeded().stdout
    assert "restarted with new labels" in text
    assert len(pids(robot, "one")) == 1
    with ended_by(other, bob):
        run_dora("cluster", "up", other, "--take-over", env=bob).succeeded()
        given = Token.parse(robot.path(TOKEN).read_text().strip())
        assert given.secret == Token("b" * 64).for_machine.secret
        assert [len(ours(host)) for host in hosts] == [1, 1]  # the dataflow has ended
        assert daemons() == {}
        done = run_dora("cluster", "down", cluster).succeeded()
        assert done.stdout.count("of another cluster runs there") == 2
        assert [len(ours(host)) for host in hosts] == [1, 1]
    assert [ours(host) for host in hosts] == [[], []]


def test_service_of_another_cluster(hosts: Hosts, cluster: Path, bob: Environment) -> None:
    robot = hosts["robot"]
    run_dora("cluster", "install", cluster).succeeded()
    try:
        token = robot.path("/etc/dora-daemon/robot.token").read_text()
        text = refused(run_dora("cluster", "install", cluster, env=bob))
        assert 'daemon "robot" (service dora-daemon-robot, process ' in text
        assert robot.path("/etc/dora-daemon/robot.token").read_text() == token
        robot.root("systemctl", "stop", "dora-daemon-robot")
        text = refused(run_dora("cluster", "up", with_port(cluster, 6014), env=bob))
        assert "service dora-daemon-robot, stopped, of ubuntu" in text
        run_dora("cluster", "install", cluster, "--take-over", env=bob).succeeded()
        given = robot.path("/etc/dora-daemon/robot.token").read_text().strip()
        assert given == Token("b" * 64).for_machine.secret
        run_dora("cluster", "uninstall", cluster, env=bob).succeeded()
    finally:
        run_dora("cluster", "uninstall", cluster, "--take-over")


def test_file_of_another_operator_with_the_same_token(
    hosts: Hosts, cluster: Path, bob: Environment, tmp_path: Path, workstation: Path
) -> None:
    run_dora("cluster", "up", cluster).succeeded()
    shared = {**bob, "DORA_AUTH_TOKEN": (workstation / "config/dora/token").read_text().strip()}
    assert "runs already" in run_dora("cluster", "up", cluster, env=shared).succeeded().stdout
    (tmp_path / "bob").mkdir()
    other = cluster_file(hosts, tmp_path / "bob", robot={"labels": {"role": "arm"}})
    text = run_dora("cluster", "up", other, env=shared).exited(1).output
    assert "robot (ubuntu@10.77.0.2) is in use by another operator of this cluster:" in text
    assert "that file has other labels, ports or env for it" in text
    assert "gpu (" not in text
    text = run_dora("cluster", "up", other, "--take-over", env=shared).succeeded().stdout
    assert "restarted with new labels" in text


@contextmanager
def ended_by(path: Path, operator: Environment) -> Iterator[None]:
    """Bring a cluster of another operator down at the end."""
    try:
        yield
    finally:
        run_dora("cluster", "down", path, env=operator, timeout=90)


# ---------------------------------------------------------------------------------- at once


def test_two_commands_at_once(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    """Both succeed; the second one changes nothing."""
    written = yaml.safe_load(cluster.read_text())
    written["machines"].reverse()
    backwards = tmp_path / "backwards.yml"
    backwards.write_text(yaml.safe_dump(written))
    with (
        running_dora("cluster", "up", cluster) as one,
        running_dora("cluster", "up", backwards) as two,
    ):
        done = [one.wait(timeout=120).succeeded(), two.wait(timeout=120).succeeded()]
    printed = [each.stdout.count("runs already") for each in done]
    assert sorted(printed) == [0, 3]
    second = done[printed.index(3)]
    assert " is held by `dora cluster up " in second.stderr
    assert set(daemons()) == {"robot", "gpu"}
    assert [len(ours(host)) for host in hosts] == [1, 1]


@contextmanager
def slow_install(hosts: Hosts, folder: Path) -> Iterator[RunningDora]:
    """`dora cluster install` that hangs while /home/ubuntu/slow exists: its `dora` does."""
    robot = hosts["robot"]
    program, marker = robot.path("/home/ubuntu/dora"), robot.path("/home/ubuntu/slow")
    program.write_text("#!/bin/sh\nwhile [ -e /home/ubuntu/slow ]; do sleep 0.1; done\nexit 3\n")
    program.chmod(0o755)
    marker.touch()
    folder.mkdir()
    file = cluster_file(hosts, folder, robot={"dora": "/home/ubuntu/dora"})
    try:
        with running_dora("cluster", "install", file) as command:
            wait_until(lambda: is_slow(robot), what="the command to work")
            yield command
    finally:
        marker.unlink(missing_ok=True)
        run_dora("cluster", "uninstall", file)
        program.unlink()


@pytest.mark.parametrize("manner", ["kill", "interrupt", "end"])
def test_machines_are_free_after_a_command(
    hosts: Hosts, cluster: Path, tmp_path: Path, manner: str
) -> None:
    folder = tmp_path / "slow"
    with slow_install(hosts, folder) as one:
        with running_dora("cluster", "up", cluster) as two:
            two.wait_for("waiting until it ends")
            account = f"root@{os.uname().nodename}"
            command = f"dora cluster install {folder / 'cluster.yml'}"
            held = f"is held by `{command}` of {account} (process {one.pid})"
            assert held in two.stderr
            assert two.process.poll() is None
            if manner == "end":
                hosts["robot"].path("/home/ubuntu/slow").unlink()
            else:
                one.send_signal(signal.SIGKILL if manner == "kill" else signal.SIGINT)
            two.wait(timeout=120).succeeded()
        one.wait()
        assert set(daemons()) == {"robot", "gpu"}


def is_slow(host: Host) -> bool:
    return any("/home/ubuntu/dora --version" in line for line in host.processes())


def test_owner_record_on_the_machine(hosts: Hosts, cluster: Path, workstation: Path) -> None:
    """The record has the token only as a fingerprint."""
    run_dora("cluster", "up", cluster).succeeded()
    path = hosts["robot"].path("/home/ubuntu/.local/state/dora/daemon/robot/owner.json")
    kept = json.loads(path.read_text())
    assert kept["operator"] == f"root@{os.uname().nodename}"
    assert kept["file"] == str(cluster)
    assert (workstation / "config/dora/token").read_text().strip() not in path.read_text()


# ---------------------------------------------------------------------------------- leftovers


def without(path: Path, name: str, *, renamed: str | None = None) -> Path:
    """Rewrite the file without a machine, or with another id for it."""
    written = yaml.safe_load(path.read_text())
    machines = [one for one in written["machines"] if one["id"] != name]
    if renamed is not None:
        entry = next(one for one in written["machines"] if one["id"] == name)
        machines.append({**entry, "id": renamed})
    path.write_text(yaml.safe_dump({**written, "machines": machines}))
    return path


def test_removed_and_renamed_machines_are_listed_and_removed(hosts: Hosts, cluster: Path) -> None:
    before = {host.name: set(host.files()) for host in hosts}
    run_dora("cluster", "up", cluster).succeeded()
    without(without(cluster, "gpu"), "robot", renamed="arm")
    for command in (("up", cluster), ("status",)):
        text = run_dora("cluster", *command).succeeded().stderr
        for name in ("robot", "gpu"):
            assert f'daemon "{name}" runs ' in text
            assert f"remove it: dora cluster remove {cluster} {name}\n" in text
    done = run_dora("cluster", "remove", cluster, "robot").succeeded()
    assert done.stdout == "Removing daemon robot from arm (ubuntu@10.77.0.2)... OK\n"
    wait_until(lambda: set(daemons()) == {"arm", "gpu"}, what="the end of the daemon")
    state = hosts["robot"].path("/home/ubuntu/.local/state/dora/daemon")
    assert [one.name for one in state.iterdir()] == ["arm"]
    text = run_dora("cluster", "remove", cluster, "none").exited(1).stderr
    assert 'no daemon "none" of this cluster was found' in text
    run_dora("cluster", "down").succeeded()
    assert {host.name: set(host.files()) for host in hosts} == before


def test_service_of_a_removed_machine(hosts: Hosts, cluster: Path) -> None:
    before = {host.name: set(host.files()) for host in hosts}
    run_dora("cluster", "install", cluster).succeeded()
    removed = run_dora("cluster", "remove", cluster, "gpu").succeeded()  # still in the file
    assert f'machine "gpu" is still in {cluster}; delete it there' in removed.stderr
    assert set(hosts["gpu"].files()) == before["gpu"]
    assert ours(hosts["gpu"]) == []
    run_dora("cluster", "uninstall", cluster).succeeded()


def test_suspended_command_loses_the_machine(hosts: Hosts, cluster: Path, tmp_path: Path) -> None:
    """It sends nothing, as after a lost connection, and the next command proceeds."""
    with slow_install(hosts, tmp_path / "slow") as one:
        one.send_signal(signal.SIGSTOP)
        done = run_dora("cluster", "up", cluster, timeout=120).succeeded()
        assert "is held by `dora cluster install" in done.stderr
        one.send_signal(signal.SIGCONT)
        one.wait().exited(1)
        assert set(daemons()) == {"robot", "gpu"}
