"""Properties of the test hosts: own init, own network, a power switch."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from support.cluster.hosts import Hosts, hosts_or_skip
from support.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Made in a session with a strict umask, which the hosts do not inherit."""
    before = os.umask(0o077)
    try:
        yield from hosts_or_skip("left", "right")
    finally:
        os.umask(before)


def _reaches(hosts: Hosts, source: str, target: str) -> bool:
    words = ("ping", "-c1", "-W1", hosts[target].address)
    return hosts[source].root(*words, check=False).returncode == 0


def _read_to_the_end(link: socket.socket) -> None:
    while link.recv(4096):
        pass


def test_host_runs_systemd_and_the_user_has_sudo(hosts: Hosts) -> None:
    left = hosts["left"]
    wait_until(
        lambda: left.root("systemctl", "is-system-running", check=False).stdout == "running\n",
        what="the end of the boot",
    )
    assert left.root("cat", "/proc/1/comm").stdout == "systemd\n"
    assert left.root("sudo", "-n", "id", "-u", user="ubuntu").stdout == "0\n"
    assert left.root("sudo", "-n", "true", user="nosudo", check=False).returncode != 0
    boots = {host.boot_id() for host in hosts}
    assert len(boots) == 2


def test_a_host_starts_only_services_that_it_needs(hosts: Hosts) -> None:
    """Whatever is enabled on this machine."""
    words = ("systemctl", "list-units", "--state=active,activating,failed", "--plain")
    shown = hosts["left"].root(*words, "--no-legend", "--type=service,timer").stdout
    units = {line.split()[0] for line in shown.splitlines()}
    others = {unit for unit in units if not unit.startswith(("systemd-", "user"))}
    assert "ssh.service" in others
    assert others <= {"ssh.service", "dbus.service", "ldconfig.service", "getty-static.service"}


def test_files_of_a_host_are_its_own(hosts: Hosts) -> None:
    before = hosts["left"].files()
    hosts["left"].root("sh", "-c", "echo x > /etc/written-by-a-test")
    after = hosts["left"].files()
    assert [name for name in after if after[name] != before.get(name)] == ["/etc/written-by-a-test"]
    assert not hosts["right"].path("/etc/written-by-a-test").exists()
    hosts["left"].root("rm", "/etc/written-by-a-test")


def test_network_is_cut_partitioned_and_mended(hosts: Hosts) -> None:
    left = hosts["left"]
    assert _reaches(hosts, "left", "right")
    hosts.partition("left", "right")
    assert not _reaches(hosts, "left", "right")
    hosts.heal()
    assert _reaches(hosts, "left", "right")
    left.cut()
    assert not _reaches(hosts, "right", "left")
    left.mend()
    assert _reaches(hosts, "right", "left")


def test_power_off_closes_no_connection(hosts: Hosts) -> None:
    left = hosts["left"]
    boot = left.boot_id()
    left.root("sh", "-c", "echo kept > /var/tmp/kept")
    with hosts.workstation(), socket.create_connection((left.address, 22), timeout=60) as link:
        assert link.recv(4) == b"SSH-"
        left.power_off()
        assert not left.is_on
        link.settimeout(0.3)
        with pytest.raises(TimeoutError):
            _read_to_the_end(link)
    left.boot()
    assert left.root("cat", "/var/tmp/kept").stdout == "kept\n"
    assert left.boot_id() not in ("", boot)


def test_host_reboots(hosts: Hosts) -> None:
    left = hosts["left"]
    boot = left.boot_id()
    left.root("systemctl", "reboot", check=False)
    wait_until(lambda: left.boot_id() not in ("", boot), what="the next boot")
    left.wait_for_ssh()


def test_bare_host_does_not_have_the_repository() -> None:
    bare = hosts_or_skip("bare", bare=True)
    host = next(bare)["bare"]
    try:
        assert host.root("ls", "-A", __file__, check=False).returncode != 0
        assert host.root("/usr/bin/python3", "-c", "import sys").returncode == 0
    finally:
        bare.close()
