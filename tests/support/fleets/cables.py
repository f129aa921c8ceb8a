"""Two network namespaces on this machine with a cable between them that can be cut.

Needs root on Linux. Each namespace belongs to a process that ends with its standard input.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.cluster.hosts import in_network
from support.requirements import require, require_installed, require_root

_HOLDER = "import sys; print('ready', flush=True); sys.stdin.read()"


def require_networks(*, ipv6: bool = False) -> None:
    """Require what network namespaces need."""
    require(not ipv6 or Path("/proc/net/if_inet6").exists(), "IPv6")
    require_root()
    require_installed("unshare", "nsenter", "ip")


class Networks:
    """Network namespaces, each held by a process."""

    def __init__(self, holders: dict[str, int]) -> None:
        """``holders``: pid of a process in each namespace, by machine name."""
        self._holders = holders

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Put this thread and its processes into a machine's network for the block."""
        with in_network(f"/proc/{self._holders[name]}/ns/net"):
            yield

    def prefix(self, name: str) -> tuple[str, ...]:
        """Return the words that run a program in a machine's network."""
        return ("nsenter", f"--net=/proc/{self._holders[name]}/ns/net")

    def run(self, name: str, *words: str) -> None:
        """Run a command in a machine's network."""
        subprocess.run((*self.prefix(name), *words), check=True, capture_output=True, timeout=60)

    def ip(self, name: str, *words: str) -> None:
        """Run the command `ip` in a machine's network."""
        self.run(name, "ip", *words)


class Cable(Networks):
    """Connects two machines, at 10.78.0.1 and 10.78.0.2 or (``ipv6``) fd00:78::1 and fd00:78::2."""

    def __init__(self, holders: dict[str, int], *, ipv6: bool) -> None:
        """``holders``: pid of a process in each namespace, by machine name."""
        super().__init__(holders)
        network, bits = ("fd00:78::", ("64", "nodad")) if ipv6 else ("10.78.0.", ("24",))
        self.addresses = {name: f"{network}{n}" for n, name in enumerate(holders, start=1)}
        first, second = holders
        self.ip(
            *(first, "link", "add", "eth0", "type", "veth"),
            *("peer", "name", "eth0", "netns", str(holders[second])),
        )
        for name, address in self.addresses.items():
            self.ip(name, "link", "set", "lo", "up")
            self.ip(name, "address", "add", f"{address}/{bits[0]}", "dev", "eth0", *bits[1:])
            self.ip(name, "link", "set", "eth0", "up")

    def cut(self) -> None:
        """Drop all packets; open connections stay open."""
        self.ip(list(self._holders)[1], "link", "set", "eth0", "down")

    def heal(self) -> None:
        self.ip(list(self._holders)[1], "link", "set", "eth0", "up")

    def listener(self, name: str) -> socket.socket:
        """Return a socket that listens on the loopback address of a machine's network."""
        with self.at(name):
            return socket.create_server(("127.0.0.1", 0))


@contextmanager
def cable(first: str, second: str, *, ipv6: bool = False) -> Iterator[Cable]:
    with ExitStack() as stack:
        holders = {name: stack.enter_context(network()) for name in (first, second)}
        yield Cable(holders, ipv6=ipv6)


@contextmanager
def network() -> Iterator[int]:
    holder = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", _HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        try:
            assert holder.stdout.readline() == b"ready\n", "no network namespace"
            yield holder.pid
        finally:
            holder.stdin.close()
            holder.wait(10)
