"""Daemons as systemd services: which events end dataflows, and which do not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.cluster.clusters import (
    cluster_file,
    coordinator_process,
    daemons,
    ended_cluster,
    forget_ticks,
    ours,
    pids,
    running,
    seen,
    ticking,
    wait_for_ticks,
)
from support.cluster.hosts import Host, Hosts
from support.dora import run_dora
from support.waiting import wait_until

from dora_config.access_token import Token

pytestmark = pytest.mark.integration

SERVICE = "dora-daemon-robot"
NODES = "dora-nodes-robot.service"
WARNINGS = ("left-over process", "remains running")
"""Warnings of systemd about other processes in the unit of a service."""


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture
def no_cluster(hosts: Hosts, cluster_yml: Path) -> Path:
    """The cluster file; nothing is installed or runs."""
    run_dora("cluster", "uninstall", cluster_yml)
    run_dora("cluster", "down", cluster_yml)
    forget_ticks(hosts)
    return cluster_yml


@pytest.fixture
def robot(hosts: Hosts, cluster_yml: Path, tmp_path: Path) -> Host:
    """A host with the service and a running dataflow, those of the last test where possible."""
    robot = hosts["robot"]
    if not robot.path("/etc/dora-daemon/robot.token").exists():
        run_dora("cluster", "install", cluster_yml).succeeded()
    robot.root("systemctl", "start", SERVICE)
    run_dora("cluster", "up", cluster_yml).succeeded()
    if not running():
        forget_ticks(hosts)
        flow = ticking(hosts, tmp_path, one="robot")
        run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
    wait_for_ticks(robot, "one")
    return robot


def main_process(host: Host) -> int:
    return int(host.root("systemctl", "show", "-p", "MainPID", "--value", SERVICE).stdout)


def procs_of_unit(host: Host, unit: str) -> list[str]:
    """Processes in the cgroup of a system unit, or none without it."""
    group = host.root("systemctl", "show", "-p", "ControlGroup", "--value", unit).stdout.strip()
    procs = f"/sys/fs/cgroup{group}/cgroup.procs"
    return sorted(host.root("cat", procs).stdout.split()) if group else []


def warnings(host: Host) -> list[str]:
    """Lines of the whole journal about processes that outlived their unit's service."""
    lines = host.root("journalctl", "--no-pager", "-b").stdout.splitlines()
    return [line for line in lines if any(part in line for part in WARNINGS) and "dora" in line]


def test_install_and_uninstall_leave_the_host_as_it_was(
    hosts: Hosts, no_cluster: Path, shared_workstation: Path
) -> None:
    before = {host.name: host.files() for host in hosts}
    done = run_dora("cluster", "install", no_cluster).succeeded()
    assert done.stdout == (
        "Installing dora-daemon-robot on ubuntu@10.77.0.2... OK\n"
        "Installing dora-daemon-gpu on ubuntu@10.77.0.3... OK\n"
        "2/2 succeeded.\n"
    )
    assert "No coordinator answers at 10.77.0.1:6013 yet" in done.stderr
    robot = hosts["robot"]
    token = Token.parse((shared_workstation / "config/dora/token").read_text().strip())
    given = robot.path("/etc/dora-daemon/robot.token").read_text()
    assert given == f"{token.for_machine}\n", "not the token of the cluster"
    assert (
        robot.root("cat", "/etc/dora-daemon/robot.token", user="ubuntu", check=False).stdout == ""
    )
    again = run_dora("cluster", "install", no_cluster).succeeded().stdout
    assert again.count("runs already") == 2
    done = run_dora("cluster", "uninstall", no_cluster).succeeded()
    assert done.stdout.endswith("2/2 succeeded.\n")
    assert {host.name: host.files() for host in hosts} == before
    for host in hosts:
        assert ours(host) == []
        assert not host.path(f"/run/dora-daemon-{host.name}").exists()
        units = host.root("systemctl", "list-units", "--all", "dora*", "--no-legend").stdout
        assert units == ""
    again = run_dora("cluster", "uninstall", no_cluster).succeeded().stdout
    assert again.count("OK (it was not installed)") == 2


def test_install_takes_over_from_up(hosts: Hosts, no_cluster: Path, tmp_path: Path) -> None:
    run_dora("cluster", "up", no_cluster).succeeded()
    robot = hosts["robot"]
    flow = ticking(hosts, tmp_path, one="robot")
    run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
    wait_for_ticks(robot, "one")
    run_dora("cluster", "install", no_cluster).succeeded()
    wait_for_ticks(robot, "one")
    assert len(pids(robot, "one")) == 1
    assert "robot" in daemons()
    run_dora("cluster", "down").succeeded()
    assert ours(robot) == []


def test_settings_of_the_unit(robot: Host) -> None:
    wanted = {
        "KillMode": "process",
        "OOMPolicy": "continue",
        "Delegate": "yes",
        "User": "ubuntu",
        "Restart": "on-failure",
        "RestartUSec": "5s",
        "RuntimeDirectory": SERVICE,
        "RuntimeDirectoryPreserve": "yes",
        "RuntimeDirectoryMode": "0700",
        "UnitFileState": "enabled",
        "ActiveState": "active",
    }
    names = ",".join(wanted)
    shown = robot.root("systemctl", "show", "-p", names, SERVICE).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    assert found == wanted
    pid = main_process(robot)
    environ = robot.root("cat", f"/proc/{pid}/environ").stdout.split("\0")
    assert f"RUNTIME_DIRECTORY=/run/{SERVICE}" in environ
    assert f"CREDENTIALS_DIRECTORY=/run/credentials/{SERVICE}.service" in environ
    limits = robot.root("cat", f"/proc/{pid}/limits").stdout
    open_files = next(line for line in limits.splitlines() if line.startswith("Max open files"))
    assert int(open_files.split()[3]) > 4096
    assert robot.root("readlink", f"/proc/{pid}/cwd").stdout == "/home/ubuntu\n"
    assert robot.path(f"/run/{SERVICE}").stat().st_mode & 0o777 == 0o700


def test_up_completes_an_install_that_was_cut_off(robot: Host, cluster_yml: Path) -> None:
    """It writes the unit first, the other files and the start at once."""
    robot.root("systemctl", "disable", "--now", SERVICE)
    robot.root("rm", "/etc/dora-daemon/robot.token")
    run_dora("cluster", "up", cluster_yml).succeeded()
    assert "robot" in daemons()
    assert robot.root("systemctl", "is-enabled", SERVICE).stdout == "enabled\n"


def test_restart_keeps_the_nodes(robot: Host) -> None:
    before, nodes = main_process(robot), pids(robot, "one")
    robot.root("systemctl", "restart", SERVICE)
    wait_until(lambda: "robot" in daemons(), what="the daemon to be back")
    assert main_process(robot) != before
    wait_for_ticks(robot, "one")
    assert pids(robot, "one") == nodes
    assert "stop" not in seen(robot, "one")
    assert len(running()) == 1


def test_restart_causes_no_warning(robot: Host) -> None:
    node = pids(robot, "one")[-1]
    daemon = str(main_process(robot))
    assert procs_of_unit(robot, f"{SERVICE}.service") == [daemon]
    inside = procs_of_unit(robot, NODES)
    assert node in inside
    runner = robot.root("ps", "-o", "ppid=", "-p", node).stdout.strip()
    assert runner in inside, "the runner and its node are in one unit"
    environ = robot.root("cat", f"/proc/{node}/environ").stdout
    assert "DORA_RUNNERS_UNIT" not in environ
    assert warnings(robot) == []
    for _ in range(2):
        robot.root("systemctl", "restart", SERVICE)
        wait_until(lambda: "robot" in daemons(), what="the daemon to be back")
    robot.root("kill", "-KILL", str(main_process(robot)))
    wait_until(lambda: main_process(robot) not in (0, int(daemon)), what="its restart")
    wait_until(lambda: "robot" in daemons(), what="the daemon to be back")
    wait_for_ticks(robot, "one")
    assert pids(robot, "one")[-1] == node
    assert warnings(robot) == []
    assert procs_of_unit(robot, NODES) == inside


def test_runner_starts_in_the_daemons_unit_without_its_own(
    hosts: Hosts, robot: Host, tmp_path: Path
) -> None:
    flow = ticking(hosts, tmp_path, two="robot")
    robot.root("systemctl", "stop", NODES)
    wait_until(lambda: not running(), what="the end of the dataflow")
    run_dora("start", flow, "--name", "beside", "--detach").succeeded()
    wait_for_ticks(robot, "two")
    assert pids(robot, "two")[-1] in procs_of_unit(robot, f"{SERVICE}.service")
    run_dora("stop", "beside").succeeded()
    robot.root("systemctl", "restart", SERVICE)
    assert robot.root("systemctl", "is-active", NODES).stdout == "active\n"


def test_killed_daemon_restarts_and_nodes_keep_running(robot: Host) -> None:
    before, nodes = main_process(robot), pids(robot, "one")
    robot.root("kill", "-KILL", str(before))
    wait_for_ticks(robot, "one")
    wait_until(lambda: main_process(robot) not in (0, before), what="its restart")
    wait_until(lambda: "robot" in daemons(), what="the daemon to be back")
    wait_for_ticks(robot, "one")
    assert pids(robot, "one") == nodes


def test_daemons_reconnect_to_a_new_coordinator(robot: Host, cluster_yml: Path) -> None:
    """Services connect to any coordinator at their address, at any time."""
    nodes = pids(robot, "one")
    os.kill(coordinator_process(), signal.SIGKILL)
    run_dora("cluster", "up", cluster_yml).succeeded()
    assert {"robot", "gpu"} <= daemons().keys()
    assert pids(robot, "one") == nodes


@pytest.mark.parametrize("manner", ["power cut", "reboot"])
def test_dataflow_restarts_with_its_machine(robot: Host, manner: str) -> None:
    lives = len(pids(robot, "one"))
    if manner == "power cut":
        robot.reboot()
    else:
        robot.root("systemctl", "reboot", check=False)
        wait_until(lambda: "robot" not in daemons(), timeout=40, what="the machine to go down")
        robot.wait_for_ssh()

    def is_back() -> bool:
        return len(pids(robot, "one")) > lives

    wait_until(is_back, what="the dataflow to be back")
    wait_for_ticks(robot, "one")
    wait_until(running, what="the dataflow to run")
    assert robot.root("systemctl", "is-active", SERVICE).stdout == "active\n"


def test_out_of_memory_kills_a_node_not_the_daemon(robot: Host) -> None:
    """The kernel kills a node with SIGKILL; by default systemd would then stop the unit."""
    daemon = main_process(robot)
    robot.root("kill", "-KILL", pids(robot, "one")[-1])
    wait_until(lambda: not running(), what="the end of the dataflow")
    assert main_process(robot) == daemon
    assert robot.root("systemctl", "is-active", SERVICE).stdout == "active\n"


def test_stop_ends_the_dataflows_of_the_machine(robot: Host) -> None:
    robot.root("systemctl", "stop", SERVICE)
    assert seen(robot, "one")[-1] == "stop"
    wait_until(lambda: ours(robot) == [], what="the end of all processes of dora")
    wait_until(lambda: "robot" not in daemons(), what="the daemon to be gone")
    assert not running()


def test_services_of_a_user_without_sudo(hosts: Hosts, no_cluster: Path, tmp_path: Path) -> None:
    assert no_cluster.exists()
    fields = {"user": "nosudo"}
    path = cluster_file(hosts, tmp_path, robot=fields, gpu=fields)
    robot = hosts["robot"]
    forget_ticks(hosts)
    robot.path("/home/ubuntu/ticker.py").unlink(missing_ok=True)
    before = robot.files()
    with ended_cluster(path, installed=True):
        done = run_dora("cluster", "install", path).exited(1)
        assert (
            "robot on nosudo@10.77.0.2... FAILED: sudo requires a password for nosudo"
            in done.stdout
        )
        assert "0/2 succeeded." in done.stdout
        assert robot.files() == before
        done = run_dora("cluster", "install", "--user", path)
        if "loginctl enable-linger" in done.stdout:  # without polkit only root may allow it
            for host in hosts:
                host.root("systemd-run", "-q", "--wait", "loginctl", "enable-linger", "nosudo")
            done = run_dora("cluster", "install", "--user", path)
        done.succeeded()
        run_dora("cluster", "up", path).succeeded()
        assert any("dora daemon" in line for line in ours(robot))
        flow = ticking(hosts, tmp_path, one="robot")
        run_dora("start", flow, "--name", "my-app", "--detach").succeeded()
        wait_for_ticks(robot, "one")
        robot.reboot()
        wait_until(lambda: len(pids(robot, "one")) == 2, timeout=60, what="the dataflow to be back")
        wait_for_ticks(robot, "one")
        _, node = pids(robot, "one")
        assert NODES in robot.root("cat", f"/proc/{node}/cgroup").stdout
        words = ("env", "XDG_RUNTIME_DIR=/run/user/2002", "systemctl", "--user", "restart", SERVICE)
        robot.root(*words, user="nosudo")
        wait_until(lambda: "robot" in daemons(), what="the daemon to be back")
        wait_for_ticks(robot, "one")
        assert pids(robot, "one")[1:] == [node]
        assert warnings(robot) == []
        forget_ticks(hosts)
        robot.path("/home/ubuntu/ticker.py").unlink()
        run_dora("cluster", "uninstall", path).succeeded()
        robot.root("sh", "-c", "rm -r ~nosudo/_work")  # files of the dataflow
        assert ours(robot) == []
    for host in hosts:
        host.root("systemd-run", "-q", "--wait", "loginctl", "disable-linger", "nosudo")
    assert robot.files() == before
