"""Upgrades of real hosts with a counting dataflow: no message is lost or repeated.

The tests share one cluster with services of version 0.1.0, and all but the last one restore it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cluster.counting import CountingCluster, Popen, start_counting
from support.cluster.hosts import Host, Hosts, hosts_or_skip
from support.cluster.installation import Installation
from support.waiting import wait_until
from support.workspace import Workspace

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    # built before the first test: later this thread is on the hosts' network, without registries
    pytest.mark.usefixtures("disconnected_version", "distant_version", "later_records_version"),
]
ROLLOUT = """\
rollout:
  first: [robot]
  then: 1
  healthy: 1s
  on_failure: pause
  check: 'test ! -e "{folder}/refuse-$DORA_MACHINE"'
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Two bare hosts: an operating system with Python only."""
    yield from hosts_or_skip("robot", "gpu", bare=True)


@pytest.fixture(scope="module", autouse=True)
def home(shared_home: Path) -> Path:
    return shared_home


@pytest.fixture(scope="module")
def cluster(
    hosts: Hosts,
    shared_workstation: Path,
    tmp_path_factory: pytest.TempPathFactory,
    old_version: Installation,
    system_wheel_house: Path,
) -> Iterator[CountingCluster]:
    """Services and counting dataflows on both hosts; uninstall must remove all files."""
    assert shared_workstation.is_dir()
    before = {host.name: host.files() for host in hosts}
    workspace = Workspace(tmp_path_factory.mktemp("upgrade"))
    settings = {"prefix": "/srv/dora", "env": {"COLOUR": 'a "deep" $RED'}}
    file = hosts.cluster_yml(workspace.path / "cluster.yml", robot=settings)
    with file.open("a") as written:
        written.write(ROLLOUT.format(folder=file.parent))
    cluster = CountingCluster(hosts, file, system_wheel_house)
    cluster.run(old_version, "install")
    cluster.run(old_version, "up")
    try:
        for host in hosts:
            start_counting(workspace, old_version, host)
        yield cluster
    finally:
        old_version.run("cluster", "down", cluster.file, timeout=120)
        cluster.run(old_version, "uninstall")
        for host in hosts:
            host.root("rm", "-rf", "/home/ubuntu/_work")
    assert {host.name: host.files() for host in hosts} == before


def interrupt(process: Popen) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)


def version_of(host: Host) -> str:
    return host.root("/usr/local/bin/dora", "--version").stdout.strip()


def test_upgrade_and_rollback_with_a_running_dataflow(
    hosts: Hosts, cluster: CountingCluster, new_version: Installation
) -> None:
    """With failures in between: no sudo, a full disk, a cut."""
    robot = hosts["robot"]
    assert {version_of(host) for host in hosts} == {"dora 0.1.0"}
    assert cluster.wrote(robot, "colour") == 'a "deep" $RED'
    assert cluster.wrote(hosts["gpu"], "colour") == "none"
    with no_sudo(robot):
        printed = cluster.run(new_version, "upgrade", code=1)
    assert "dora 0.1.0 -> 0.2.0... OK (store copied to" in printed
    assert "FAILED: sudo requires a password for ubuntu" in printed
    with no_room(robot):
        printed = cluster.run(new_version, "upgrade", code=1)
    assert "the disk of /home/ubuntu/.cache/dora/archives has " in printed
    cluster.require_whole(robot)
    assert version_of(robot) == "dora 0.1.0"
    code, printed = cluster.disturb(
        new_version,
        "upgrade",
        after="Restart service... OK",
        by=lambda _process: cut_during_the_restart(robot),
    )
    assert code == 0, printed
    assert "2/2 succeeded." in printed, printed
    assert printed.count("Its dataflows... OK (1 running, 2 nodes)") == 2
    for host in hosts:
        assert version_of(host) == "dora 0.2.0"
        cluster.require_whole(host)
        prefix = "/srv/dora" if host is robot else "/opt/dora"
        trees = {path.name for path in host.path(prefix).iterdir()}
        assert {name[:5] for name in trees} == {"0.1.0", "0.2.0", "curre", "previ"}
    again = cluster.run(new_version, "upgrade")
    assert again.count("It runs that version already") == 2
    printed = cluster.run(new_version, "downgrade")
    assert "Returning to dora 0.1.0: robot, gpu, the coordinator\n" in printed
    assert "2/2 succeeded." in printed
    assert "  dora 0.2.0 -> 0.1.0... OK" in printed
    again = cluster.run(new_version, "downgrade")
    assert "The last upgrade was undone already" in again
    require_everywhere(cluster, "0.1.0")
    cluster.run(new_version, "upgrade", "--machine", "robot")
    printed = cluster.run(new_version, "downgrade")
    assert "Returning to dora 0.1.0: robot, the coordinator\n" in printed
    assert "Left as they are: gpu (0.1.0)\n" in printed
    require_everywhere(cluster, "0.1.0")
    printed = cluster.run(new_version, "downgrade", "--to", "0.3.0", code=1)
    assert "dora 0.3.0 is not on every machine (robot has 0.1.0, 0.2.0; gpu has" in printed
    printed = cluster.run(new_version, "downgrade", "--to", "0.2.0", "--machine", "robot")
    assert version_of(robot) == "dora 0.2.0"
    cluster.require_whole(robot)
    cluster.run(new_version, "downgrade", "--to", "0.1.0", "--machine", "robot")
    require_everywhere(cluster, "0.1.0")


def test_a_version_that_cannot_control_what_runs_is_refused_before_it_begins(
    hosts: Hosts, cluster: CountingCluster, distant_version: Installation
) -> None:
    printed = cluster.run(distant_version, "upgrade", code=1)
    for host in hosts:
        problem = "the daemon of dora 0.5.0 could not control the nodes that dora 0.1.0 runs there"
        assert f"{host.name}: {problem} (runner protocol 1.0 and 3.0); run `dora stop" in printed
    assert "Nothing was changed" in printed
    assert "Upgrading" not in printed
    require_everywhere(cluster, "0.1.0")


def require_everywhere(cluster: CountingCluster, version: str) -> None:
    for host in cluster.hosts:
        assert version_of(host) == f"dora {version}"
        cluster.require_whole(host)


def test_a_machine_that_its_check_refuses_returns(
    hosts: Hosts, cluster: CountingCluster, new_version: Installation
) -> None:
    """The coordinator of `install` runs the check, because the cluster file contains it."""
    refusal = cluster.file.with_name("refuse-gpu")
    refusal.touch()
    printed = cluster.run(new_version, "upgrade", code=1)
    assert printed.count("Check... OK") == 1
    assert printed.count("Check... FAILED") == 1
    assert "check: exit code 1: no output" in printed
    assert "  robot        0.2.0\n  gpu          0.1.0\n" in printed, printed
    assert version_of(hosts["gpu"]) == "dora 0.1.0"
    cluster.require_whole(hosts["gpu"])
    refusal.unlink()
    assert "succeeded." in cluster.run(new_version, "upgrade")
    require_everywhere(cluster, "0.2.0")
    cluster.run(new_version, "downgrade")
    require_everywhere(cluster, "0.1.0")


@contextmanager
def no_sudo(host: Host) -> Iterator[None]:
    """Revoke the user's sudo for the block."""
    host.root("mv", "/etc/sudoers.d/dora-tests", "/var/lib/sudo-rules-kept")
    try:
        yield
    finally:
        host.root("mv", "/var/lib/sudo-rules-kept", "/etc/sudoers.d/dora-tests")


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


def cut_during_the_restart(host: Host) -> None:
    """Cut the host off until its new daemon has logged its first attempt to connect."""
    unit = f"dora-daemon-{host.name}"

    def log() -> str:
        pid = host.root("systemctl", "show", "-p", "MainPID", "--value", unit).stdout.strip()
        return host.root("journalctl", "-o", "cat", f"_PID={pid}", check=False).stdout

    host.cut()
    try:
        wait_until(lambda: "coordinator at" in log(), what=log)
    finally:
        host.mend()


def test_connection_is_closed_during_the_restart(
    hosts: Hosts, cluster: CountingCluster, new_version: Installation
) -> None:
    """The machine is restored or upgraded; the same command then succeeds."""
    robot = hosts["robot"]
    code, printed = cluster.disturb(
        new_version,
        "upgrade",
        after="Put dora 0.2.0 there and test it... OK",
        by=lambda _process: close_connections(robot),
    )
    assert "EOFError" not in printed
    if code:
        assert "FAILED: the connection broke: " in printed, printed
        assert "What runs now:\n  coordinator  0.2.0\n  robot        0.1.0\n" in printed, printed
    assert "succeeded." in cluster.run(new_version, "upgrade")
    require_everywhere(cluster, "0.2.0")
    cluster.run(new_version, "downgrade")
    require_everywhere(cluster, "0.1.0")


def close_connections(host: Host) -> None:
    """Kill the sshd processes that serve connections."""
    listed = host.root("ps", "-eo", "pid=,args=").stdout.splitlines()
    pids = [line.split()[0] for line in listed if "sshd: ubuntu" in line or "sshd-session" in line]
    host.root("kill", "-KILL", *pids, check=False)


def test_broken_version_is_replaced_by_the_old_one(
    hosts: Hosts, cluster: CountingCluster, disconnected_version: Installation
) -> None:
    """Its self-test passes, but its daemon never connects; also with Ctrl-C during the wait."""
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


@pytest.mark.slow  # three versions on one disk: only in a session of its own
def test_a_rollback_to_a_version_that_cannot_read_the_records_is_refused(
    hosts: Hosts, cluster: CountingCluster, later_records_version: Installation
) -> None:
    robot = hosts["robot"]
    cluster.run(later_records_version, "upgrade", "--machine", "robot")
    printed = cluster.run(later_records_version, "downgrade", code=1)
    assert "robot: dora 0.1.0 cannot read what dora 0.6.0 has written there" in printed
    assert "(records of the daemon: version 2.0, it reads 1.x)" in printed
    assert "Nothing was changed" in printed
    assert version_of(robot) == "dora 0.6.0"
    cluster.require_whole(robot)
