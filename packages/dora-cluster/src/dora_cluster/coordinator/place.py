"""The machine of the coordinator: this one, or `coordinator.host` over SSH."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dora_cluster.decisions.preflight import (
    NotReady,
)
from dora_cluster.decisions.units import (
    coordinator_service_name,
)
from dora_cluster.machines.local_connection import NAME, LocalConnection
from dora_cluster.machines.remote_machine import RemoteMachine, connect_to
from dora_config.cluster.models import Cluster, Machine
from dora_config.control_plane import is_local

_SYSTEMD = Path("/run/systemd/system")


class CoordinatorMachine(RemoteMachine):
    """A connection to the coordinator's machine, which may be this one."""

    @property
    def service(self) -> str:
        return coordinator_service_name(self.cluster)

    @property
    def is_remote(self) -> bool:
        return self.cluster.coordinator.host is not None

    @property
    def where(self) -> str:
        return location(self.cluster)


def location(cluster: Cluster) -> str:
    """Return the coordinator's machine in messages."""
    return cluster.coordinator.target or NAME


@contextmanager
def open_place(cluster: Cluster) -> Iterator[CoordinatorMachine]:
    """Open the machine with the coordinator's address; raises NotReady and SshError."""
    coordinator = cluster.coordinator
    if coordinator.host is not None:
        machine = Machine(
            id="coordinator",
            host=coordinator.host,
            user=coordinator.user,
            port=coordinator.ssh_port,
            identity_file=coordinator.identity_file,
            dora=coordinator.dora,
        )
        with connect_to(machine) as connection:
            yield CoordinatorMachine(cluster, machine, connection)
    elif is_local(coordinator.addr):
        yield this_machine(cluster)
    else:
        raise NotReady(
            f"{coordinator.addr} is not an address of this machine; run this command on the "
            "machine that has it, or name that machine as `coordinator.host`"
        )


def this_machine(cluster: Cluster) -> CoordinatorMachine:
    """Return this machine as the machine of the coordinator."""
    here = Machine(id="coordinator", host=socket.gethostname())
    return CoordinatorMachine(cluster, here, LocalConnection())


def can_have_service(cluster: Cluster) -> bool:
    """Return whether the file names the machine of the coordinator, or this machine's systemd has
    the coordinator's address.
    """
    if cluster.coordinator.host is not None:
        return True
    if not _SYSTEMD.is_dir() or not is_local(cluster.coordinator.addr):
        return False
    with suppress(OSError):  # only root can read it
        return Path("/proc/1/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    return True
