"""A machine of a cluster over SSH."""

from __future__ import annotations

import time
from typing import Any

from dora_cli.bundle.layout import USER, Layout, system
from dora_cli.cluster.decisions.daemon_argv import daemon_name
from dora_cli.cluster.decisions.preflight import MachineFacts
from dora_cli.cluster.decisions.units import service_name
from dora_cli.remote_call import call
from dora_cli.ssh.connection import Connection, Target, connect
from dora_config.cluster.models import Cluster, Machine


def connect_to(machine: Machine) -> Connection:
    """Log in to a machine; raises SshError."""
    target = Target(machine.host, machine.user, machine.port, machine.identity_file, machine.id)
    return connect(target)


def layout_of(machine: Machine, *, user: bool) -> Layout:
    """Return where dora is installed there: in the user's home, or below ``prefix``."""
    return USER if user else system(machine.prefix)


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

    def call(self, command: str, **options: Any) -> dict[str, Any]:
        """Run a command of ``remote_program`` and return its result; raises DoraError."""
        return call(self.connection, command, **options)

    def facts(self) -> MachineFacts:
        """Fetch the current facts about the machine."""
        begin = time.time()
        found = self.call(
            "daemon.facts",
            name=self.daemon,
            unit=self.service,
            dora=self.machine.dora,
            coordinator=self.cluster.coordinator.addr,
        )
        return MachineFacts.from_answer(found, sent=begin, received=time.time())
