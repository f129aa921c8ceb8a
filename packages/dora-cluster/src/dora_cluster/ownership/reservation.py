"""Reserves the machines of one command: connected, leased from other commands, and checked.

No machine is changed before all of them are leased and belong to this cluster.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any

from dora_cli import output
from dora_cluster.connection import MachineConnection
from dora_cluster.decisions.existing_daemons import (
    Conflict,
    ExistingDaemon,
    UnexpectedDaemons,
    UserAccount,
    classify,
    describe_conflicts,
    format_time,
    settings_digest,
)
from dora_cluster.machines.remote_machine import (
    Connections,
    MachineKey,
    RemoteMachine,
    in_parallel,
    key_of,
)
from dora_cluster.ownership.lease import Lease, this_computer
from dora_cluster.remote_call import call
from dora_cluster.remote_program.existing_daemons import fingerprint
from dora_config.access import find_token
from dora_config.cluster.models import Cluster, Machine
from dora_config.errors import DoraError

POLL_INTERVAL = 1.0
"""Seconds between requests for the lease of a machine that another command has."""

Answer = Mapping[str, Any]


def account_name() -> str:
    """Return the name of this account; raises DoraError if it has none, as in some containers."""
    try:
        return getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        raise DoraError(f"user id {os.getuid()} has no name here; set the variable USER") from None


def this_account(file: Path) -> UserAccount:
    """Return the account; ``file``: the cluster file of the command."""
    token = find_token()
    name = f"{account_name()}@{socket.gethostname()}"
    shown = fingerprint(token) if token else None
    return UserAccount(name, str(Path.home()), str(file.absolute()), shown)


@dataclass(frozen=True, slots=True)
class ClusterCommand:
    """A command that changes machines."""

    name: str
    """``up``"""
    file: Path
    """The cluster file."""
    take_over: bool = False
    refuses: bool = True
    """Whether machines of others are an error; otherwise they are left unchanged."""
    surveys_all: bool = False
    """Whether the command concerns all daemons of a machine, not only those of the file."""


class Reservation:
    """Connections and leases of one command; created by ``reserve``."""

    def __init__(
        self, cluster: Cluster, command: ClusterCommand, machines: Sequence[Machine]
    ) -> None:
        self.cluster = cluster
        self.command = command
        self.connections = Connections()
        self._operator = this_account(command.file)
        self._machines = machines
        self._leases: dict[MachineKey, Lease] = {}
        self._hosts: dict[MachineKey, str] = {}
        """The host that an entry leads to; two entries may lead to the same host."""
        self._unexpected: dict[MachineKey, UnexpectedDaemons] = {}
        self._info = {
            "key": uuid.uuid4().hex,
            "operator": self._operator.name,
            "command": f"dora cluster {command.name} {command.file}",
            "pid": os.getpid(),
            "computer": this_computer(),
        }
        self._changing = threading.Lock()

    # ------------------------------------------------------------------------ for the command

    def conflicts(self, machine: Machine) -> tuple[Conflict, ...]:
        """Return the daemons of others on a machine."""
        return self._unexpected_on(machine).conflicts

    def leftovers(self) -> list[tuple[Machine, ExistingDaemon]]:
        """Return daemons of this cluster that its file does not contain, with their machine."""
        found: dict[tuple[str, str], tuple[Machine, ExistingDaemon]] = {}
        for machine in self._machines:
            for one in self._unexpected_on(machine).leftovers:
                host = self._hosts.get(key_of(machine), machine.target)
                found.setdefault((host, one.name), (machine, one))
        return list(found.values())

    def record_owner(self, remote: RemoteMachine) -> None:
        """Store on the machine who sets up its daemon, and for which cluster."""
        # This command may have created the token since `begin`.
        operator = this_account(self.command.file)
        owner = operator.record(settings_digest(remote.cluster, remote.machine))
        remote.call("existing_daemons.record", name=remote.machine.daemon, owner=owner)

    def _unexpected_on(self, machine: Machine) -> UnexpectedDaemons:
        return self._unexpected.get(key_of(machine), UnexpectedDaemons())

    # ------------------------------------------------------------------------ begin and end

    def begin(self) -> None:
        """Connect, take the leases and check; raises DoraError."""
        self.connections.connect(self._machines)
        self._take_all()
        # another command may have created the account's token before it released its leases
        self._operator = this_account(self.command.file)
        self._on_each(self._survey)
        if self.command.refuses and not self.command.take_over:
            self._require_no_conflict()

    def end(self) -> None:
        """Free the machines and close the connections."""
        self._give_back()
        self.connections.close()

    def _on_each(self, work: Callable[[Machine], None]) -> None:
        """Do work on the machines that were not excluded."""
        there = [one for one in self._machines if self.connections.problem(one) is None]
        in_parallel(self.connections, there, work)

    # ------------------------------------------------------------------------ leases

    def _take_all(self) -> None:
        """Take the leases of all machines at once; if some are held, one after the other.

        The order then depends on the hosts and the accounts there only, so that two commands
        never wait for each other.
        """
        answers: dict[MachineKey, Answer] = {}

        def try_one(machine: Machine) -> None:
            if (answer := self._take(machine)) is not None:
                answers[key_of(machine)] = answer

        self._on_each(try_one)
        for key, answer in answers.items():
            self._hosts[key] = str(answer["machine"])
        if all(answer["holder"] is None for answer in answers.values()):
            return
        self._give_back()

        def order(machine: Machine) -> tuple[str, int]:
            answer = answers[key_of(machine)]
            return str(answer["machine"]), int(answer["account"])

        for machine in sorted((one for one in self._machines if key_of(one) in answers), key=order):
            shown = None
            while (holder := (self._take(machine) or {}).get("holder")) is not None:
                if holder != shown:
                    output.remark(
                        f"{machine.label} {_describe_holder(holder)}; waiting until it ends"
                    )
                shown = holder
                time.sleep(POLL_INTERVAL)

    def _take(self, machine: Machine) -> Answer | None:
        """Request the lease once; on failure exclude the machine and return None."""

        def on_loss() -> None:
            text = "it is not reserved any more, and its connection is closed; run this again"
            output.warn(f"{machine.label}: {text}")
            self.connections.exclude(machine, DoraError(f"{machine.label}: {text}"))

        try:
            with self.connections.open(machine) as connection:
                lease = Lease(connection, self._info, on_loss)
                answer = lease.take()
        except DoraError as error:
            self.connections.exclude(machine, error)
            return None
        with self._changing:
            self._leases[key_of(machine)] = lease
        return answer

    def _give_back(self) -> None:
        leases = list(self._leases.values())
        self._leases.clear()
        in_parallel(self.connections, leases, Lease.end)

    # ------------------------------------------------------------------------ daemons found

    def _survey(self, machine: Machine) -> None:
        try:
            with self.connections.open(machine) as connection:
                daemons = survey(connection)
        except DoraError as error:
            self.connections.exclude(machine, error)
            return
        wanted = [one for one in self.cluster.machines if self._is_same_host(one, machine)]
        if not self.command.surveys_all:
            ids = {one.id for one in wanted}
            daemons = [one for one in daemons if one.id in ids]
        self._unexpected[key_of(machine)] = classify(daemons, self.cluster, wanted, self._operator)

    def _is_same_host(self, one: Machine, other: Machine) -> bool:
        hosts = self._hosts.get(key_of(one)), self._hosts.get(key_of(other))
        if None not in hosts:
            return hosts[0] == hosts[1]
        return (one.host, one.port) == (other.host, other.port)

    def _require_no_conflict(self) -> None:
        now = time.time()
        found = [
            describe_conflicts(machine.label, conflicts, self.cluster, self._operator, now=now)
            for machine in self._machines
            if (conflicts := self.conflicts(machine))
        ]
        if found:
            raise DoraError(
                "\n".join(found) + "\nnothing was changed on any machine; --take-over ends the "
                "daemons of other clusters with their dataflows and uses the machines"
            )


def survey(connection: MachineConnection) -> list[ExistingDaemon]:
    """Return the daemons of a machine; raises DoraError."""
    found = call(connection, "existing_daemons.survey")["daemons"]
    return [ExistingDaemon.model_validate(one) for one in found]


def _describe_holder(holder: Mapping[str, Any]) -> str:
    since = format_time(float(holder["since"]), now=time.time())
    return (
        f"is held by `{holder['command']}` of {holder['operator']} (process {holder['pid']}) "
        f"since {since}"
    )


@contextmanager
def reserve(
    cluster: Cluster, command: ClusterCommand, machines: Sequence[Machine] | None = None
) -> Iterator[Reservation]:
    """Reserve machines (None: all of the cluster) for the block; raises DoraError."""
    reservation = Reservation(cluster, command, cluster.machines if machines is None else machines)
    try:
        reservation.begin()
        yield reservation
    finally:
        reservation.end()
