"""Request to run the program of a node in a process, which is executed or forked."""

from __future__ import annotations

import fcntl
import os
import resource
import termios
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dora_node_api.frozen import FrozenRecord
from dora_node_api.protocol.messages import to_json


def lead_group() -> None:
    """Make this process lead a process group of the runner's session, without a terminal.

    Not a session of its own: Linux groups processes by session (autogroup), and a node that polls
    yields its processor only within its group, so the link and the other nodes would wait for it.
    Called between fork and exec. Raises OSError.
    """
    os.setpgid(0, 0)
    with suppress(OSError):  # the session lacks a terminal
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


class SpawnRequest(FrozenRecord):
    """Program and environment. ``cwd`` exists; ``env`` is complete."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    cpus: tuple[int, ...] = ()
    """Processor cores; empty: the cores of the runner."""
    open_files: tuple[int, int] | None = None
    """RLIMIT_NOFILE of the node, soft and hard, instead of the raised limits of the runner."""
    inherited: tuple[int, ...] = ()
    """Descriptors that it inherits under the same numbers; a zygote cannot pass these on."""

    def apply(self) -> None:
        """Set what this process keeps when it runs the program. Raises OSError or ValueError.

        Called between fork and exec: takes no lock and imports nothing.
        """
        step = "cannot lead a process group"
        try:
            lead_group()
            if self.cpus:
                cores = ", ".join(map(str, self.cpus))
                step = f"cannot set its processor cores {cores} (`cpu_affinity`)"
                os.sched_setaffinity(0, self.cpus)
            if self.open_files is not None:
                step = f"cannot set its limits of open files {self.open_files} (`ulimit -n`)"
                resource.setrlimit(resource.RLIMIT_NOFILE, self.open_files)
        except (OSError, ValueError) as error:
            raise OSError(f"{step}: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object for :meth:`from_json`."""
        values: dict[str, Any] = to_json(self)
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SpawnRequest:
        """Return the request of a runner of the same version."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**given)

    def __repr__(self) -> str:
        return f"SpawnRequest({self.argv})"  # variables may be secret
