"""A machine of a cluster over SSH, and the program that runs commands there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from dora_cli.bundle.layout import USER, Layout, system
from dora_cli.bundle.machine import ask
from dora_cli.cluster.decisions.daemon_argv import daemon_name
from dora_cli.cluster.decisions.daemon_unit import service_name
from dora_cli.cluster.decisions.health import Health
from dora_cli.cluster.decisions.preflight import MachineFacts
from dora_cli.ssh import Connection, Finished, Target, connect
from dora_config.cluster.models import Cluster, Machine


def connect_to(machine: Machine) -> Connection:
    """Log in to a machine; raises SshError."""
    target = Target(machine.host, machine.user, machine.port, machine.identity_file, machine.id)
    return connect(target)


def layout_of(machine: Machine, *, user: bool) -> Layout:
    """Return where dora is installed there: in the user's home, or below ``prefix``."""
    return USER if user else system(machine.prefix)


@cache
def _program() -> bytes:
    return (files("dora_cli.cluster") / "on_machine.py").read_bytes()


@cache
def _health_program() -> bytes:
    return (files("dora_cli.cluster") / "health_program.py").read_bytes()


@dataclass(frozen=True, slots=True)
class _Streaming:
    """A connection that passes on the output of commands while they run."""

    connection: Connection
    on_output: Callable[[bytes], None]

    @property
    def name(self) -> str:
        return self.connection.name

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", sudo: bool = False, timeout: float = 60.0
    ) -> Finished:
        return self.connection.run(
            argv, stdin=stdin, sudo=sudo, timeout=timeout, on_output=self.on_output
        )

    def send(
        self,
        source: Path,
        target: str,
        *,
        offset: int = 0,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.connection.send(source, target, offset=offset, progress=progress)


class RemoteMachine:
    """A connection to a machine of a cluster."""

    def __init__(self, cluster: Cluster, machine: Machine, connection: Connection) -> None:
        self.cluster = cluster
        self.machine = machine
        self.connection = connection

    @property
    def daemon(self) -> str:
        """Name of the daemon's state folder."""
        return daemon_name(self.machine)

    @property
    def service(self) -> str:
        """Name of the unit without ``.service``."""
        return service_name(self.machine)

    def call(self, command: str, *, timeout: float = 60.0, **arguments: Any) -> dict[str, Any]:
        """Run a command of ``on_machine`` and return its answer; raises DoraError."""
        return ask(self.connection, command, program=_program(), timeout=timeout, **arguments)

    def call_streaming(
        self, command: str, on_output: Callable[[bytes], None], **arguments: Any
    ) -> dict[str, Any]:
        """Like ``call``, and pass on the output while the command runs."""
        return ask(_Streaming(self.connection, on_output), command, program=_program(), **arguments)

    def health(self, facts: MachineFacts) -> Health:
        """Fetch the health of the machine and its daemon."""
        found = ask(
            self.connection,
            "health",
            program=_health_program(),
            name=self.daemon,
            unit=self.service,
            pid=None if facts.daemon is None else facts.daemon.pid,
        )
        return Health.model_validate(found)

    def facts(self) -> MachineFacts:
        """Fetch the current facts about the machine."""
        begin = time.time()
        found = self.call(
            "facts",
            name=self.daemon,
            unit=self.service,
            dora=self.machine.dora,
            coordinator=self.cluster.coordinator.addr,
        )
        return MachineFacts.from_answer(found, sent=begin, received=time.time())
