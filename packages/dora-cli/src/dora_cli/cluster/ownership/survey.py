"""Which daemons a machine has, and their owner records."""

from __future__ import annotations

from dora_cli.cluster.decisions.existing_daemons import ExistingDaemon, Operator, settings_digest
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.remote_call import call
from dora_cli.ssh import Connection


def survey(connection: Connection) -> list[ExistingDaemon]:
    """Return the daemons of a machine; raises DoraError."""
    return [
        ExistingDaemon.model_validate(one)
        for one in call(connection, "existing_daemons.survey")["daemons"]
    ]


def record_owner(remote: RemoteMachine, operator: Operator) -> None:
    """Store the owner record of the machine's daemon."""
    owner = operator.record(settings_digest(remote.cluster, remote.machine))
    remote.call("existing_daemons.record", name=remote.daemon, owner=owner)


def end_foreign_daemon(connection: Connection, pid: int, *, within: float) -> None:
    """End the daemon process of another user, with its dataflows."""
    call(
        connection, "existing_daemons.end", sudo=True, timeout=within + 30.0, pid=pid, within=within
    )
