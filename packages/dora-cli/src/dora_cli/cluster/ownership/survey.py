"""Which daemons a machine has, and their owner records: a program that runs there."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from dora_cli.bundle.machine import ask
from dora_cli.cluster.decisions.occupants import Occupant, Operator, settings_digest
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.ssh import Connection


@cache
def _program() -> bytes:
    return (files("dora_cli.cluster") / "occupancy_program.py").read_bytes()


def _call(
    connection: Connection, command: str, *, sudo: bool = False, timeout: float = 60.0, **given: Any
) -> dict[str, Any]:
    return ask(connection, command, sudo=sudo, timeout=timeout, program=_program(), **given)


def survey(connection: Connection) -> list[Occupant]:
    """Return the daemons of a machine; raises DoraError."""
    return [Occupant.model_validate(found) for found in _call(connection, "survey")["daemons"]]


def record_owner(remote: RemoteMachine, operator: Operator) -> None:
    """Store the owner record of the machine's daemon."""
    owner = operator.record(settings_digest(remote.cluster, remote.machine))
    _call(remote.connection, "record", name=remote.daemon, owner=owner)


def end_foreign_daemon(connection: Connection, pid: int, *, within: float) -> None:
    """End the daemon process of another user, with its dataflows."""
    _call(connection, "end", sudo=True, timeout=within + 30.0, pid=pid, within=within)
