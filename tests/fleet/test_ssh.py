"""Connections to a real sshd: keys, jumps, commands, files and failures."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster.hosts import Hosts
from support.cluster.hosts_boot import USER, USER_WITHOUT_SUDO
from support.waiting import wait_until

from dora_cluster.connection import MachineConnection
from dora_cluster.errors import (
    ConnectionLost,
    HostKeyRefused,
    LoginRefused,
    RemoteCommandFailed,
    RemoteTimeout,
    SshError,
    SudoUnavailable,
    Unreachable,
)
from dora_cluster.ssh.connection import connect
from dora_config.cluster.models import Machine


def target(host: str, **given: object) -> Machine:
    """Return a machine of a cluster file."""
    return Machine.model_validate({"id": "robot", "host": host, **given})


def write_config(home: Path, line: str) -> None:
    """Put a line before the others of the SSH configuration."""
    config = home / ".ssh/config"
    config.write_text(f"{line}\n{config.read_text()}")


pytestmark = pytest.mark.integration


@pytest.fixture
def robot(workstation: Path, hosts: Hosts) -> Iterator[MachineConnection]:
    with connect(target("robot")) as machine:
        yield machine


# ------------------------------------------------------------------------------- commands


def test_arguments_are_unchanged(robot: MachineConnection) -> None:
    words = ["a b", "'", '"', "$HOME", "`id`", "*", "", "\\", "a\nb", "é!", "-n", "~"]
    assert robot.check(["printf", "%s\\0", *words]).split("\0")[:-1] == words


def test_input_output_and_exit_code(robot: MachineConnection) -> None:
    data = bytes(range(256)) * 40_000  # 10 MB, more than any window
    done = robot.run(["sh", "-c", "cat; echo no >&2; exit 3"], stdin=data)
    assert (done.code, done.stderr) == (3, "no\n")
    assert done.stdout.encode("utf-8", "surrogateescape") == data


def test_command_may_ignore_a_large_input(robot: MachineConnection) -> None:
    assert robot.run(["false"], stdin=b"x" * 30_000_000).code == 1


def test_error_has_the_last_output_of_a_failed_command(robot: MachineConnection) -> None:
    with pytest.raises(RemoteCommandFailed, match=r"robot.*exit code 7:\n  out of milk"):
        robot.script("echo out of milk >&2; exit 7")


def test_command_times_out(robot: MachineConnection) -> None:
    with pytest.raises(RemoteTimeout, match="sleep 60"):
        robot.run(["sleep", "60"], timeout=0.3)
    assert robot.check(["echo", "alive"]) == "alive\n"


def test_another_login_shell(robot: MachineConnection, hosts: Hosts) -> None:
    hosts["robot"].root("usermod", "-s", "/bin/sh", USER)
    try:
        with connect(target("robot")) as machine:
            assert machine.script('printf %s "$1"', "it's") == "it's"
    finally:
        hosts["robot"].root("usermod", "-s", "/bin/bash", USER)


def test_root_without_a_password(robot: MachineConnection, hosts: Hosts) -> None:
    assert robot.check(["id", "-u"], sudo=True) == "0\n"
    with connect(target("robot", user="root")) as machine:
        hosts["robot"].root("mv", "/usr/bin/sudo", "/usr/bin/sudo.away")
        try:
            assert machine.check(["id", "-u"], sudo=True) == "0\n"
            with pytest.raises(
                SudoUnavailable, match="sudo is not installed there; log in as root"
            ):
                robot.check(["id", "-u"], sudo=True)
        finally:
            hosts["robot"].root("mv", "/usr/bin/sudo.away", "/usr/bin/sudo")


def test_sudo_with_a_password(workstation: Path) -> None:
    with (
        connect(target("robot", user=USER_WITHOUT_SUDO)) as machine,
        pytest.raises(SudoUnavailable, match=r"robot \(nosudo@robot\): .*NOPASSWD"),
    ):
        machine.check(["true"], sudo=True)


# ------------------------------------------------------------------------------- files


def test_files_are_replaced_atomically(robot: MachineConnection, hosts: Hosts) -> None:
    robot.write("/home/ubuntu/one", b"\xff\x00first", mode=0o600)
    robot.write("/home/ubuntu/one", b"\xff\x00second", mode=0o640)
    assert robot.read("/home/ubuntu/one") == b"\xff\x00second"
    assert robot.read("/home/ubuntu/none") is None
    assert robot.check(["stat", "-c", "%a", "/home/ubuntu/one"]) == "640\n"
    robot.write("/etc/dora-of-root", b"x", sudo=True)
    assert robot.check(["stat", "-c", "%U", "/etc/dora-of-root"]) == "root\n"
    assert robot.check(["ls", "/home/ubuntu"]) == "one\n"
    with pytest.raises(RemoteCommandFailed, match="Permission denied"):
        robot.write("/etc/not-mine", b"x")


def test_transfer_is_resumed(robot: MachineConnection, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(range(250)) * 20_000)
    seen: list[int] = []
    robot.write("/home/ubuntu/big", source.read_bytes()[:1_000_000])
    robot.send(source, "/home/ubuntu/big", offset=1_000_000, progress=seen.append)
    assert seen[-1] == 4_000_000
    assert robot.read("/home/ubuntu/big") == source.read_bytes()


def test_full_disk(robot: MachineConnection, hosts: Hosts, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(3_000_000))
    hosts["robot"].root("mkdir", "-p", "/mnt/small")
    hosts["robot"].root("mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs", "/mnt/small")
    try:
        with pytest.raises(RemoteCommandFailed, match="No space left on device"):
            robot.send(source, "/mnt/small/big")
    finally:
        hosts["robot"].root("umount", "/mnt/small")


# ------------------------------------------------------------------------------- host keys


def test_new_host_key_is_recorded_for_openssh(workstation: Path, hosts: Hosts) -> None:
    connect(target("robot")).close()
    known = workstation / ".ssh" / "known_hosts"
    first = known.read_text()
    assert first.count("\n") == 1
    connect(target("robot")).close()
    assert known.read_text() == first
    words = ["-F", str(workstation / ".ssh/config"), "-o", f"UserKnownHostsFile={known}"]
    words += ["-i", str(workstation / ".ssh/id_ed25519"), "-o", "StrictHostKeyChecking=yes"]
    done = subprocess.run(
        ["ssh", *words, "robot", "echo", "known"], capture_output=True, text=True, timeout=20
    )
    assert done.stdout == "known\n", done.stderr


@pytest.mark.parametrize("hashed", [False, True])
def test_changed_host_key_is_refused_with_its_line(
    workstation: Path, hosts: Hosts, hashed: bool
) -> None:
    config = workstation / ".ssh" / "config"
    config.write_text(f"HashKnownHosts {'yes' if hashed else 'no'}\n" + config.read_text())
    known = workstation / ".ssh" / "known_hosts"
    known.write_text("# a remark\n")
    connect(target("robot")).close()
    before = known.read_text()
    assert ("10.77.0.2" in before) is not hashed
    hosts["robot"].new_host_key()
    with pytest.raises(HostKeyRefused) as refused:
        connect(target("robot"))
    assert f"{known}:2 has ssh-ed25519 SHA256:" in str(refused.value)
    assert f"ssh-keygen -f {known} -R '10.77.0.2'" in str(refused.value)
    assert known.read_text() == before
    subprocess.run(
        ["ssh-keygen", "-f", str(known), "-R", "10.77.0.2"], check=True, capture_output=True
    )
    connect(target("robot")).close()


def test_strict_checking_refuses_new_keys(workstation: Path) -> None:
    config = workstation / ".ssh" / "config"
    config.write_text("StrictHostKeyChecking yes\n" + config.read_text())
    with pytest.raises(HostKeyRefused, match="StrictHostKeyChecking refuses new ones"):
        connect(target("robot"))
    assert not (workstation / ".ssh/known_hosts").exists()


# ------------------------------------------------------------------------------- own keys


def test_refused_login_lists_the_tried_keys(workstation: Path) -> None:
    ssh = workstation / ".ssh"
    for name in ("other", "locked"):
        phrase = "secret" if name == "locked" else ""
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", str(ssh / name)], check=True
        )
    (ssh / "broken").write_text("not a key\n")
    lines = "".join(f"IdentityFile ~/.ssh/{name}\n" for name in ("other", "locked", "broken", "no"))
    (ssh / "config").write_text(lines + (ssh / "config").read_text())
    with pytest.raises(LoginRefused) as refused:
        connect(target("robot"))
    text = str(refused.value)
    assert text.startswith("robot (robot): ubuntu may not log in with the keys that were tried:")
    assert f"{ssh}/other: refused" in text
    assert f"{ssh}/locked: needs its passphrase" in text
    assert f"{ssh}/broken: not a usable key" in text
    assert f"{ssh}/no: no such file" in text
    with connect(target("robot", identity_file="~/.ssh/id_ed25519")) as machine:
        assert machine.check(["id", "-un"]) == "ubuntu\n"


def test_no_key_and_no_such_user(workstation: Path) -> None:
    with pytest.raises(LoginRefused, match=r"unknown-user .*\n.*id_ed25519: refused"):
        connect(target("robot", user="unknown-user"))
    (workstation / ".ssh/id_ed25519").unlink()
    with pytest.raises(LoginRefused, match="none: this account has no key"):
        connect(target("robot"))


def test_key_of_the_agent(workstation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = workstation / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        wait_until(socket.exists, what="the agent's socket")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        key = workstation / ".ssh/id_ed25519"
        subprocess.run(["ssh-add", "-q", str(key)], check=True)
        key.unlink()
        with connect(target("robot")) as machine:
            assert machine.check(["id", "-un"]) == "ubuntu\n"
        config = workstation / ".ssh/config"
        config.write_text("IdentityAgent none\n" + config.read_text())
        with pytest.raises(LoginRefused):
            connect(target("robot"))
    finally:
        agent.terminate()
        agent.wait(10)


# ------------------------------------------------------------------------------- routes


def test_through_a_jump_host_and_through_a_command(workstation: Path, hosts: Hosts) -> None:
    config = workstation / ".ssh/config"
    text = config.read_text()
    words = f"-F {config} -i {workstation}/.ssh/id_ed25519 -o UserKnownHostsFile=/dev/null"
    command = f"ssh {words} -o StrictHostKeyChecking=no -o LogLevel=ERROR -W %h:%p robot"
    for way in ("ProxyJump robot", f"ProxyCommand {command}", "ProxyJump ubuntu@robot:22,gpu"):
        config.write_text(f"Host gpu-far\n  HostName 10.77.0.3\n  User ubuntu\n  {way}\n{text}")
        with connect(target("gpu-far")) as machine:
            assert machine.check(["hostname"]) == "gpu\n"
            came = machine.check(["sh", "-c", "echo $SSH_CONNECTION"]).split()[0]
            assert came == hosts["gpu" if "," in way else "robot"].address
    config.write_text(f"Host gpu-far\n  HostName 10.77.0.9\n  ProxyJump robot\n{text}")
    with pytest.raises(Unreachable, match=r"10\.77\.0\.2 \(ProxyJump\) cannot reach 10\.77\.0\.9"):
        connect(target("gpu-far"))
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(Unreachable, match="leads in a circle"):
        connect(target("a"))


def test_unreachable_host(workstation: Path, hosts: Hosts) -> None:
    with pytest.raises(Unreachable, match="port 2222: Connection refused; check the address"):
        connect(target("10.77.0.2", port=2222))
    with pytest.raises(Unreachable, match=r"cannot connect to no-such-host.* name"):
        connect(target("no-such-host.invalid"))
    write_config(workstation, "ConnectTimeout 1")
    hosts["gpu"].cut()
    try:
        with pytest.raises(Unreachable, match=r"timed out|No route"):
            connect(target("gpu"))
    finally:
        hosts["gpu"].mend()


def test_cut_is_detected_while_a_command_runs(workstation: Path, hosts: Hosts) -> None:
    gpu = hosts["gpu"]

    def cut() -> None:
        wait_until(lambda: "sleep 60" in gpu.processes(), what="the remote command")
        gpu.cut()

    write_config(workstation, "ServerAliveInterval 1")
    with connect(target("gpu")) as machine:
        cutting = threading.Thread(target=cut)
        cutting.start()
        try:
            with pytest.raises(ConnectionLost, match=r"robot \(gpu\): the connection broke"):
                machine.run(["sleep", "60"])
        finally:
            cutting.join()
            gpu.mend()
        with pytest.raises(ConnectionLost):
            machine.run(["true"])


def test_power_off_during_a_transfer(workstation: Path, hosts: Hosts, tmp_path: Path) -> None:
    source = tmp_path / "big"
    source.write_bytes(bytes(100_000_000))
    write_config(workstation, "ServerAliveInterval 1")
    with connect(target("gpu")) as machine:
        off: list[int] = []

        def progress(sent: int) -> None:
            if not off:
                off.append(sent)
                hosts["gpu"].power_off()

        try:
            with pytest.raises(SshError):
                machine.send(source, "/home/ubuntu/big", progress=progress)
        finally:
            hosts["gpu"].boot()
    shutil.rmtree(workstation / ".ssh")
