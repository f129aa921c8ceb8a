"""Test hosts on this machine, with a real systemd and sshd; they boot, lose network and power.

Root on Linux is needed. All namespaces, mounts and processes belong to one process (the hub), which
ends when its standard input closes: nothing outlives the tests, however they end.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import yaml
from support.cluster.hosts_boot import BOOT_SCRIPT, INIT_SCRIPT, USER, Identity, make_key, prepare
from support.requirements import require, require_installed, require_root
from support.sources import ROOT
from support.waiting import PATIENCE, wait_until

WORKSTATION = "10.77.0.1"
"""Address of the test on the hosts' network."""
NEEDED = (
    *("unshare", "nsenter", "ip", "bridge", "pivot_root", "ping", "ssh-keygen", "sudo"),
    *(
        "dbus-daemon",
        "/lib/systemd/systemd",
        "/usr/sbin/sshd",
        "/usr/lib/*/security/pam_systemd.so",
    ),
)
"""Programs and files."""
_CLONE_NEWNET = 0x40000000
_UMASK = 0o022
_MEMORY = "4g"
"""Size of the tmpfs with the disks of all hosts."""
_HUB = """
import os, pathlib, shutil, signal, subprocess, sys, threading, time
folder, cgroup = map(pathlib.Path, sys.argv[1:])

def reap():
    while True:
        try:
            os.wait()
        except ChildProcessError:
            signal.sigtimedwait([signal.SIGCHLD], 0.2)

def remove(top):
    deadline = time.monotonic() + 10
    while top.exists() and time.monotonic() < deadline:
        try:
            (top / "cgroup.kill").write_text("1")
        except OSError:
            pass
        below = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
        for path in [*below, top]:
            try:
                path.rmdir()
            except OSError:
                pass
        time.sleep(0.02)

threading.Thread(target=reap, daemon=True).start()
sys.stdout.write("ready\\n")
sys.stdout.flush()
sys.stdin.read()
remove(cgroup)
os.system(f"umount -l {folder}")
shutil.rmtree(folder, ignore_errors=True)
"""
"""Waits until its standard input closes, which also happens on a crash; then removes all."""


def hosts_or_skip(*names: str, bare: bool = False) -> Generator[Hosts, None, None]:
    """For a fixture: booted hosts, removed at the end; skips the test where they are impossible."""
    require_root()
    require_installed(*NEEDED, path="/usr/sbin:/usr/bin:/sbin:/bin")
    require(_cgroup2(), "a mounted cgroup2")
    if not bare:
        require(
            all(_is_open_to_all(Path(folder)) for folder in _our_folders()),
            "a clone and an environment that every account may read (made with umask 022)",
        )
    with Hosts.made(*names, bare=bare) as hosts:
        for host in hosts:
            host.boot(wait=False)
        for host in hosts:
            host.wait_for_ssh()
        yield hosts


class Hosts:
    """Some hosts on one network, created by ``made``."""

    def __init__(self, folder: Path, hub: int, cgroup: Path, key: Path) -> None:
        self.folder = folder
        """Folder of the hosts' disks, as the hub sees it."""
        self.hub = hub
        """Process id of the first process in the hub's namespaces."""
        self.cgroup = cgroup
        self.key = key
        """A private key that every host accepts."""
        self._hosts: dict[str, Host] = {}

    @classmethod
    @contextmanager
    def made(cls, *names: str, bare: bool = False) -> Iterator[Hosts]:
        """Create hosts with these names, not booted yet.

        ``bare``: without this repository and the environment of the tests.
        """
        found = _cgroup2()
        assert found is not None
        folder = Path(tempfile.mkdtemp(prefix="dh", dir="/tmp"))
        cgroup = found / f"dora-tests-{folder.name}"
        hub = _start_hub(folder, cgroup)
        try:
            inside = _only_child(hub.pid)
            with (folder / "key").open("w"):
                make_key(folder / "key")
            hosts = cls(folder, inside, cgroup, folder / "key")
            ours = ("hide", *_our_folders(), _cache()) if bare else ("show", *_our_folders())
            with _umask():
                hosts._make(names, ours)
            yield hosts
        finally:
            assert hub.stdin is not None
            hub.stdin.close()
            hub.wait(20)
            if hub.stdout is not None:
                hub.stdout.close()

    def _make(self, names: tuple[str, ...], ours: tuple[str, ...]) -> None:
        self.cgroup.mkdir()
        self.in_hub("mount", "-t", "tmpfs", "-o", f"mode=755,size={_MEMORY}", "tmpfs", self.folder)
        self.in_hub("mkdir", "-p", "/run/netns")
        self.in_hub("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        for line in (
            "link set lo up",
            "link add wire type bridge",
            f"address add {WORKSTATION}/24 dev wire",
            "link set wire up",
        ):
            self.in_hub("ip", *line.split())
        (self.seen / "boot.sh").write_text(BOOT_SCRIPT)
        (self.seen / "init.sh").write_text(INIT_SCRIPT)
        addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, start=2)}
        public = self.key.with_name("key.pub").read_text().strip()
        for name, address in addresses.items():
            folder = self.seen / name
            folder.mkdir()
            prepare(
                folder, Identity(name, address, addresses | {"workstation": WORKSTATION}, public)
            )
            self._hosts[name] = Host(self, name, address, ours)

    @property
    def seen(self) -> Path:
        """The folder of the disks, from outside the hub."""
        return Path(f"/proc/{self.hub}/root{self.folder}")

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def in_hub(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command as root beside the hosts, with their network and disks."""
        return _enter(self.hub, ("--mount", "--net", "--pid"), words, check=check)

    @contextmanager
    def workstation(self) -> Iterator[None]:
        """Put this thread and its processes on the hosts' network for the block."""
        with in_network(f"/proc/{self.hub}/ns/net"):
            yield

    def partition(self, *names: str) -> None:
        """Cut these hosts off from each other, but not from the other hosts."""
        for name in names:
            self.in_hub("bridge", "link", "set", "dev", self[name].wire, "isolated", "on")

    def heal(self) -> None:
        """End all partitions."""
        for host in self:
            self.in_hub("bridge", "link", "set", "dev", host.wire, "isolated", "off", check=False)

    def write_ssh(self, home: Path, *, user: str = USER, key: bool = True) -> Path:
        """Write ``home/.ssh`` of a user with access to every host; return its config file."""
        folder = home / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        if key:
            target = folder / "id_ed25519"
            shutil.copy(self.key, target)
            target.chmod(0o600)
        lines = []
        for host in self:
            lines += [f"Host {host.name}", f"    HostName {host.address}", f"    User {user}"]
        config = folder / "config"
        config.write_text("\n".join(lines) + "\n")
        config.chmod(0o600)
        return config

    def cluster_yml(self, path: Path, **fields: Mapping[str, Any]) -> Path:
        """Write a cluster file with all hosts; ``fields`` by host name."""
        machines = [
            {"id": host.name, "host": host.address, "user": USER} | dict(fields.get(host.name, {}))
            for host in self
        ]
        path.write_text(
            yaml.safe_dump({"coordinator": {"addr": WORKSTATION}, "machines": machines})
        )
        return path


class Host:
    """One host; it must be booted before use."""

    def __init__(self, hosts: Hosts, name: str, address: str, ours: tuple[str, ...]) -> None:
        self.name = name
        self.address = address
        self.user = USER
        self.wire = f"to-{name}"[:15]
        """The network device of the host on the bridge."""
        self._hosts = hosts
        self._ours = ours
        self._cgroup = hosts.cgroup / name
        self._disk = hosts.seen / name / "upper"

    # ------------------------------------------------------------------------ power

    def boot(self, *, wait: bool = True) -> None:
        """Switch it on, and (``wait``) wait until its sshd answers."""
        hosts = self._hosts
        number = int(self.address.rpartition(".")[2])
        card = (
            f"02:00:0a:4d:00:{number:02x}"  # unchanged by a reboot, so that ARP caches stay valid
        )
        end = ("name", "eth0", "address", card, "netns", self.name)
        for words in (
            ("netns", "add", self.name),
            ("link", "add", self.wire, "type", "veth", "peer", *end),
            ("link", "set", self.wire, "master", "wire"),
            ("link", "set", self.wire, "up"),
            ("-n", self.name, "link", "set", "lo", "up"),
            ("-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0"),
            ("-n", self.name, "link", "set", "eth0", "up"),
        ):
            hosts.in_hub("ip", *words)
        folder = hosts.folder / self.name
        hosts.in_hub(
            *("sh", "-c", 'nohup nsenter "$@" </dev/null >/dev/null 2>&1 &', "sh"),
            *(
                f"--net=/run/netns/{self.name}",
                "sh",
                hosts.folder / "boot.sh",
                folder,
                self.name,
                self._cgroup,
            ),
            *self._ours,
        )
        if wait:
            self.wait_for_ssh()

    def power_off(self) -> None:
        """Cut the power: connections stay open without an answer."""
        self.cut()
        with suppress(FileNotFoundError):
            (self._cgroup / "cgroup.kill").write_text("1")
        wait_until(lambda: not self.is_on, what=f"the end of {self.name}")
        self._hosts.in_hub("ip", "link", "delete", self.wire)
        self._hosts.in_hub("ip", "netns", "delete", self.name)
        _remove_cgroup(self._cgroup)

    def reboot(self) -> None:
        """Power off and boot."""
        self.power_off()
        self.boot()

    @property
    def is_on(self) -> bool:
        with suppress(FileNotFoundError):
            return "populated 1" in (self._cgroup / "cgroup.events").read_text()
        return False

    def wait_for_ssh(self) -> None:
        def answers() -> bool:
            try:
                with socket.create_connection((self.address, 22), timeout=1) as link:
                    return link.recv(4) == b"SSH-"
            except OSError:
                return False

        with self._hosts.workstation():
            wait_until(answers, what=lambda: f"sshd of {self.name}:\n{self._console()}")

    def _console(self) -> str:
        with suppress(OSError, AssertionError, IndexError):
            return self.root("sh", "-c", "cat /run/.console; journalctl -b -n 30").stdout
        return "(it does not run)"

    # ------------------------------------------------------------------------ network

    def cut(self) -> None:
        """Cut the network: no packet arrives or leaves."""
        self._hosts.in_hub("ip", "link", "set", self.wire, "down")

    def mend(self) -> None:
        self._hosts.in_hub("ip", "link", "set", self.wire, "up")

    # ------------------------------------------------------------------------ its inside

    def root(
        self,
        *words: object,
        check: bool = True,
        user: str | None = None,
        stdin: str = "",
        timeout: float = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the host without sshd, as root or as ``user``."""
        if user is not None:
            words = ("runuser", "-u", user, "--", *words)
        return _enter(
            self._first_process(), ("--all",), words, check=check, stdin=stdin, timeout=timeout
        )

    def _first_process(self) -> int:
        listed = (self._cgroup / "init.scope" / "cgroup.procs").read_text().split()
        return int(listed[0])

    def boot_id(self) -> str:
        """Return the id of the current boot, empty while the host is down.

        It starts no process, which could hang in a host that is shutting down.
        """
        with suppress(OSError, IndexError):
            return self.path("/proc/sys/kernel/random/boot_id").read_text()
        return ""

    def path(self, inside: str) -> Path:
        """Path of a host's file from outside; the host must be on."""
        return Path(f"/proc/{self._first_process()}/root") / inside.lstrip("/")

    def processes(self) -> list[str]:
        """Command lines of its processes."""
        listed = self.root("ps", "-eo", "args=").stdout.splitlines()
        return [line for line in listed if not line.startswith("ps -eo")]

    def files(self) -> dict[str, str]:
        """Return the files that differ from those of this machine, with mode and content.

        Logs and state of the operating system are left out.
        """
        found = {}
        for path in self._disk.rglob("*"):
            name = f"/{path.relative_to(self._disk)}"
            same = (
                path.is_dir() and Path(name).is_dir() and _describe(Path(name)) == _describe(path)
            )
            if not name.startswith(_OF_THE_SYSTEM) and not same:
                found[name] = _describe(path)
        return found

    def new_host_key(self) -> None:
        """Replace the host key, as after a new installation or an attack."""
        make_key(self.path("/etc/ssh/ssh_host_ed25519_key"))
        self.root("systemctl", "restart", "ssh")
        self.wait_for_ssh()


_OF_THE_SYSTEM = ("/var/log/", "/var/lib/systemd", "/var/cache/", "/var/lib/private", "/var/tmp/")


def _describe(path: Path) -> str:
    info = path.lstat()
    mode = f"{stat.filemode(info.st_mode)} {info.st_uid}"
    if stat.S_ISREG(info.st_mode):
        return f"{mode} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    if stat.S_ISLNK(info.st_mode):
        return f"{mode} -> {os.readlink(path)}"
    return mode


def _start_hub(folder: Path, cgroup: Path) -> subprocess.Popen[bytes]:
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    hub = subprocess.Popen(
        [*words, "--propagation", "private", sys.executable, "-c", _HUB, str(folder), str(cgroup)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        start_new_session=True,
    )
    assert hub.stdout is not None
    if hub.stdout.readline() != b"ready\n":
        raise AssertionError("the hub of the test hosts did not start: namespaces are not allowed?")
    return hub


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _enter(
    pid: int,
    namespaces: tuple[str, ...],
    words: tuple[object, ...],
    *,
    check: bool,
    stdin: str = "",
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["nsenter", "--target", str(pid), *namespaces, "--", *(str(word) for word in words)],
        input=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
        umask=_UMASK,
    )
    if check and done.returncode:
        command = " ".join(str(word) for word in words)
        raise AssertionError(f"`{command}` failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done


@contextmanager
def in_network(namespace: str) -> Iterator[None]:
    """Put this thread and its processes into a network namespace for the block."""
    with open("/proc/thread-self/ns/net") as home, open(namespace) as there:
        _set_network(there)
        try:
            yield
        finally:
            _set_network(home)


def _set_network(namespace: TextIO) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace.name)


def _is_open_to_all(folder: Path) -> bool:
    """Return whether other accounts may read a folder that is shown to them elsewhere."""
    return folder.stat().st_mode & 0o005 == 0o005


def _cgroup2() -> Path | None:
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, kind, options, *_ = line.split()
            if kind == "cgroup2" and "rw" in options.split(","):
                return Path(place)
    return None


def _remove_cgroup(top: Path) -> None:
    def removed() -> bool:
        if not top.exists():
            return True
        with suppress(OSError):
            (top / "cgroup.kill").write_text("1")
        folders = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
        for folder in [*folders, top]:
            with suppress(OSError):
                folder.rmdir()
        return not top.exists()

    wait_until(removed, what=f"the removal of {top}")


def _our_folders() -> tuple[str, ...]:
    """Folders of this repository and of the tests' environment, if outside of /usr."""
    places = {str(ROOT), sys.prefix, sys.base_prefix}
    return tuple(sorted(place for place in places if not place.startswith("/usr")))


@contextmanager
def _umask() -> Iterator[None]:
    """Create files as a system's installation does, also in a session with another umask."""
    before = os.umask(_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def _cache() -> str:
    return str(Path.home() / ".cache")
