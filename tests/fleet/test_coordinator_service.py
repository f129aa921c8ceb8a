"""The coordinator as a service, on this machine and on another one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.cluster.clusters import (
    TICKER,
    dataflows,
    ended_cluster,
    ours,
    pids,
    put_script,
    wait_for_ticks,
)
from support.cluster.hosts import Host, Hosts, hosts_or_skip
from support.cluster.installation import Installation
from support.dora import DORA, run_dora
from support.waiting import wait_until

from dora_cli.coordinator.client import CoordinatorClient
from dora_cli.coordinator.errors import CoordinatorUnavailable
from dora_config.access import endpoint
from dora_config.protocol.control import ClusterStatus

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

SERVICE = "dora-coordinator"
FLOW = """\
nodes:
  - id: one
    path: /home/ubuntu/ticker.py
    deploy: {machine: robot}
    inputs: {tick: dora/timer/millis/50}
"""
USER_FILES = (
    "/home/ubuntu/.",
    "/home/ubuntu/cluster.yml",
    "/home/ubuntu/flow.yml",
    "/home/nosudo",
)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """The coordinator's machine, and a robot with the program of a node."""
    for made in hosts_or_skip("control", "robot"):
        put_script(made["robot"], "ticker.py", TICKER)
        yield made


class HostUser:
    """Runs dora as a user of a host."""

    def __init__(self, host: Host, user: str = "ubuntu") -> None:
        self.host = host
        self.user = user

    def dora(self, *words: str, code: int = 0) -> str:
        """Run dora in the user's home; return its output."""
        done = self.try_dora(*words)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def try_dora(self, *words: str) -> subprocess.CompletedProcess[str]:
        home = f"/home/{self.user}"
        script = 'cd "$HOME" && exec "$@"'
        given = ["env", f"HOME={home}", "PYTHONDONTWRITEBYTECODE=1", "sh", "-c", script, "sh"]
        return self.host.root(*given, DORA, *words, user=self.user, check=False, timeout=200)

    def answers(self) -> bool:
        return self.try_dora("list").returncode == 0


@pytest.fixture
def operator(hosts: Hosts) -> Iterator[HostUser]:
    """On `control`, with a key for `robot` and a cluster file; removes everything at the end."""
    control = hosts["control"]
    robot = {"id": "robot", "host": hosts["robot"].address, "user": "ubuntu", "dora": str(DORA)}
    file = {"coordinator": {"addr": control.address}, "machines": [robot]}
    for user in ("ubuntu", "nosudo"):
        home = control.path(f"/home/{user}")
        (home / "cluster.yml").write_text(yaml.safe_dump(file))
        (home / "flow.yml").write_text(FLOW)
        key = home / ".ssh/id_ed25519"
        key.write_bytes(hosts.key.read_bytes())
        key.chmod(0o600)
        control.root("chown", f"{user}:", f"/home/{user}/.ssh/id_ed25519")
    found = HostUser(control)
    try:
        yield found
    finally:
        found.try_dora("cluster", "uninstall", "cluster.yml")
        found.try_dora("cluster", "down", "cluster.yml")


def state(host: Host, name: str = SERVICE) -> str:
    words = ["systemctl", "show", "-p", "UnitFileState,ActiveState", "--value", name]
    return " ".join(host.root(*words).stdout.split())


def main_process(host: Host) -> int:
    return int(host.root("systemctl", "show", "-p", "MainPID", "--value", SERVICE).stdout)


def system_files(host: Host) -> dict[str, str]:
    """Files of a host except the user's own."""
    return {name: what for name, what in host.files().items() if not name.startswith(USER_FILES)}


def test_coordinator_on_this_machine(hosts: Hosts, operator: HostUser) -> None:
    control, robot = hosts["control"], hosts["robot"]
    before = system_files(control)
    operator.dora(
        "cluster", "up", "cluster.yml"
    )  # the service replaces its coordinator and uses its store
    operator.dora("start", "flow.yml", "--name", "my-app", "--detach")
    wait_for_ticks(robot, "one")
    printed = operator.dora("cluster", "install", "cluster.yml")
    assert "Installing dora-coordinator on this machine... OK\n" in printed
    assert "1/1 succeeded." in printed
    assert state(control) == "active enabled"
    assert len(pids(robot, "one")) == 1
    assert "my-app" in operator.dora("list")
    assert "dora-coordinator on this machine... runs already" in operator.dora(
        "cluster", "install", "cluster.yml"
    )
    listening = control.root("ss", "-Hltn", "sport = :6013").stdout.split()
    assert {word for word in listening if word.endswith(":6013")} == {
        "127.0.0.1:6013",
        f"{control.address}:6013",
    }

    killed = main_process(control)
    control.root("kill", "-KILL", str(killed))
    wait_until(lambda: main_process(control) not in (0, killed), what="its restart")
    wait_until(operator.answers, what="the coordinator after a kill")

    for host in (control, robot):
        host.power_off()
    for host in (robot, control):
        host.boot()
    wait_until(operator.answers, timeout=60, what="the coordinator after a power cut")
    wait_until(lambda: len(pids(robot, "one")) == 2, timeout=60, what="the dataflow to be back")
    assert "my-app" in operator.dora("list")

    printed = operator.dora("cluster", "down", "cluster.yml")
    assert "dora-coordinator starts again with this machine" in printed
    assert state(control) == "inactive enabled"
    printed = operator.dora("cluster", "doctor", "cluster.yml", code=1)
    assert "- coordinator: its service dora-coordinator on this machine is inactive; " in printed
    operator.dora("cluster", "up", "cluster.yml")
    assert state(control) == "active enabled"
    operator.dora("cluster", "down", "cluster.yml")
    assert "1" not in operator.dora("cluster", "up", "--recreate-store", "cluster.yml").split()
    assert "my-app" not in operator.dora("list")
    assert control.path("/home/ubuntu/.local/state/dora/coordinator/store.sqlite3.old").exists()

    printed = operator.dora("cluster", "uninstall", "cluster.yml")
    assert "Uninstalling dora-coordinator from this machine... OK" in printed
    assert state(control) == "inactive"
    assert system_files(control) == before
    assert not any("dora_coordinator" in line for line in control.processes())


def test_user_without_sudo(hosts: Hosts, operator: HostUser) -> None:
    control = hosts["control"]
    plain = HostUser(control, "nosudo")
    printed = plain.dora("cluster", "install", "cluster.yml", code=1)
    assert (
        "Installing dora-coordinator on this machine... FAILED: root's rights are needed" in printed
    )
    assert "run `sudo -v` in this terminal and then this command again, or use `--user`" in printed
    assert state(control) == "inactive"
    assert operator.user == "ubuntu"
    for host, user in ((control, "nosudo"), (hosts["robot"], "ubuntu")):
        host.root("systemd-run", "-q", "--wait", "loginctl", "enable-linger", user)
    printed = plain.dora("cluster", "install", "--user", "cluster.yml", code=1)
    assert "dora-daemon-robot is installed there as a system service already" in printed
    plain.dora("cluster", "uninstall", "cluster.yml")
    printed = plain.dora("cluster", "install", "--user", "cluster.yml")
    assert "Installing dora-coordinator on this machine... OK" in printed
    assert "runs already" in plain.dora("cluster", "install", "--user", "cluster.yml")
    control.reboot()
    wait_until(plain.answers, timeout=60, what="the coordinator after a power cut")
    assert "starts again with this machine" in plain.dora("cluster", "down", "cluster.yml")
    plain.dora("cluster", "up", "cluster.yml")
    plain.dora("cluster", "uninstall", "cluster.yml")
    assert not any("dora_coordinator" in line for line in control.processes())


def test_coordinator_of_another_cluster_is_not_replaced(operator: HostUser) -> None:
    control = operator.host
    operator.dora("cluster", "install", "cluster.yml")
    here = {"id": "other", "host": control.address, "user": "ubuntu", "dora": str(DORA)}
    other = {"coordinator": {"addr": "127.0.0.5"}, "machines": [here]}
    control.path("/home/ubuntu/other.yml").write_text(yaml.safe_dump(other))
    try:
        printed = operator.dora("cluster", "install", "other.yml", code=1)
        assert (
            f"coordinator of another cluster, at {control.address}:6013; uninstall that one"
            in printed
        )
    finally:
        operator.dora("cluster", "uninstall", "other.yml")
    assert state(control) == "active enabled"
    operator.dora("list")


def cluster_of_two(hosts: Hosts, folder: Path, **fields: str) -> Path:
    """A cluster file that names the coordinator's machine."""
    control, robot = hosts["control"], hosts["robot"]
    file = {
        "coordinator": {"addr": control.address, "host": control.address, **fields},
        "machines": [{"id": "robot", "host": robot.address, **fields}],
    }
    path = folder / "cluster.yml"
    path.write_text(yaml.safe_dump(file))
    return path


def test_coordinator_on_another_machine(hosts: Hosts, home: Path, tmp_path: Path) -> None:
    control, robot = hosts["control"], hosts["robot"]
    hosts.write_ssh(home)
    program = {"user": "ubuntu", "dora": str(DORA)}
    path = cluster_of_two(hosts, tmp_path, **program)
    flow = tmp_path / "flow.yml"
    flow.write_text(FLOW)
    there = "--coordinator-addr", control.address
    control.root("rm", "-rf", "/home/ubuntu/.local")
    with hosts.workstation(), ended_cluster(path, installed=True):
        before = control.files()
        refused = run_dora("cluster", "up", path).exited(1)
        assert f"none is installed on ubuntu@{control.address} (`coordinator.host`)" in (
            refused.stderr
        )
        done = run_dora("cluster", "install", path).succeeded()
        assert f"Installing dora-coordinator on ubuntu@{control.address}... OK" in done.stdout
        assert state(control) == "active enabled"
        run_dora("start", flow, "--name", "my-app", "--detach", *there).succeeded()
        lives = len(pids(robot, "one"))
        control.reboot()
        wait_until(
            lambda: "my-app" in run_dora("list", *there).stdout, timeout=60, what="the coordinator"
        )
        assert len(pids(robot, "one")) == lives
        run_dora("cluster", "down", path).succeeded()
        assert state(control) == "inactive enabled"
        run_dora("cluster", "up", path).succeeded()
        assert state(control) == "active enabled"
        run_dora("cluster", "down", path).succeeded()
        control.root("rm", "/etc/dora-coordinator/token")  # as if `install` had been cut off
        refused = run_dora("cluster", "up", path).exited(1)
        assert "is without its token: an installation was cut off" in refused.stderr
        run_dora("cluster", "install", path).succeeded()
        assert state(control) == "active enabled"
        run_dora("cluster", "uninstall", path).succeeded()
        assert control.files() == before
        assert ours(robot) == []


def test_upgrade_and_rollback_of_a_remote_coordinator(
    hosts: Hosts,
    home: Path,
    tmp_path: Path,
    old_version: Installation,
    new_version: Installation,
    system_wheel_house: Path,
) -> None:
    control, robot = hosts["control"], hosts["robot"]
    hosts.write_ssh(home)
    path = cluster_of_two(hosts, tmp_path, user="ubuntu")
    flow = tmp_path / "flow.yml"
    flow.write_text(FLOW)
    there = "--coordinator-addr", control.address

    def run(version: Installation, *words: str, code: int = 0) -> str:
        fetches = words[0] in ("install", "upgrade")
        offline = ("--offline", system_wheel_house) if fetches else ()
        done = version.run("cluster", *words, path, *offline, timeout=300)
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    control.root("rm", "-rf", "/home/ubuntu/.local")
    with hosts.workstation(), ended_cluster(path, installed=True):
        before = control.files()
        printed = run(old_version, "upgrade", code=1)
        assert "so nothing was changed: start it with `dora cluster up`" in printed
        assert control.files() == before
        run(old_version, "install")
        done = old_version.run("start", flow, "--name", "my-app", "--detach", *there)
        assert done.returncode == 0, done.stderr
        lives = len(pids(robot, "one"))
        printed = run(new_version, "upgrade")
        assert "  dora 0.1.0 -> 0.2.0... OK (store copied to /home/ubuntu/.local/state/" in printed
        assert "1/1 succeeded." in printed
        control.reboot()
        wait_until(lambda: release(control) == "0.2.0", timeout=60, what="the new coordinator")
        assert "Returning to dora 0.1.0: robot, the coordinator\n" in run(new_version, "downgrade")
        assert release(control) == "0.1.0"
        assert "was undone already" in run(new_version, "downgrade")
        assert release(control) == "0.1.0"
        assert len(pids(robot, "one")) == lives
        assert [one.name for one in dataflows(control.address)] == ["my-app"]
        run(new_version, "uninstall")
        assert control.files() == before


def release(control: Host) -> str:
    """Return the coordinator's version; empty if it does not answer."""
    try:
        with CoordinatorClient(endpoint(control.address)) as client:
            return client.request(ClusterStatus()).coordinator.release
    except CoordinatorUnavailable:
        return ""
