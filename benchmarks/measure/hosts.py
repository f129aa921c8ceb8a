"""Two hosts on this machine: network namespaces joined by a cable, each with its own /dev/shm."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

NETWORK = "10.78.0"


@dataclass(frozen=True)
class Host:
    """A network namespace with one address."""

    name: str
    address: str
    core: int | None = None
    """Core that all its processes run on; None for any."""

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command that runs ``arguments`` on this host, with a /dev/shm of its own."""
        own = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        inside = ["unshare", "--mount", "sh", "-c", own, "sh"]
        if self.core is not None:
            inside = ["taskset", "-c", str(self.core), *inside]
        return ["ip", "netns", "exec", self.name, *inside, *arguments]

    def start(
        self, arguments: Sequence[str], environ: Mapping[str, str], output: Path
    ) -> subprocess.Popen[bytes]:
        """Start a program; what it prints is appended to ``output``."""
        with output.open("ab") as file:
            return subprocess.Popen(
                self.command(arguments),
                env=dict(environ),
                cwd=output.parent,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def pids(self) -> list[int]:
        """Every process on this host."""
        listed = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True
        )
        return [int(word) for word in listed.stdout.split()]

    def cpu_seconds(self) -> float:
        """Return the processor time that the running processes of this host have used."""
        used = 0.0
        for pid in self.pids():
            with suppress(psutil.NoSuchProcess):
                times = psutil.Process(pid).cpu_times()
                used += times.user + times.system
        return used

    def kill_all(self) -> None:
        """End every process on this host at once, as a power cut does."""
        deadline = time.monotonic() + 10
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


@contextmanager
def two_hosts(*, pinned: bool = False) -> Iterator[tuple[Host, Host]]:
    """Make the hosts; afterwards nothing runs on them and they are gone. Needs root.

    ``pinned``: each host has one core.
    """
    if os.geteuid() != 0:
        raise SystemExit("two hosts are made of network namespaces, which needs root")
    mark = secrets.token_hex(3)  # not the pid, which is not unique in a PID namespace
    cores = sorted(os.sched_getaffinity(0))
    first = Host(f"dora-bench-{mark}-1", f"{NETWORK}.1", cores[0] if pinned else None)
    second = Host(f"dora-bench-{mark}-2", f"{NETWORK}.2", cores[-1] if pinned else None)
    with ExitStack() as undo:
        for host in (first, second):
            _ip("netns", "add", host.name)
            undo.callback(_ip, "netns", "del", host.name)
            undo.callback(host.kill_all)
        _ip(
            *("link", "add", "eth0", "netns", first.name, "type", "veth"),
            *("peer", "name", "eth0", "netns", second.name),
        )
        for host in (first, second):
            _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield first, second


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
