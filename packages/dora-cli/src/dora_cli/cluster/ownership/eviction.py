"""Ends a daemon that a machine must not have any more, and removes its files."""

from __future__ import annotations

from dora_cli.cluster.decisions.existing_daemons import ExistingDaemon
from dora_cli.cluster.decisions.units import STOP_TIMEOUT
from dora_cli.cluster.machines.daemon_service import DaemonService, stop_and_clean
from dora_cli.cluster.machines.parallel import Report
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.ownership.reservation import Reservation


def take_over(remote: RemoteMachine, reservation: Reservation, report: Report) -> bool:
    """End the daemons of others with their dataflows; return whether there were any."""
    foreign = [one.daemon for one in reservation.conflicts(remote.machine) if one.ends]
    for daemon in foreign:
        report(f'ending daemon "{daemon.id}" of {daemon.user}')
        evict(remote, daemon)
    return bool(foreign)


def evict(remote: RemoteMachine, daemon: ExistingDaemon) -> None:
    """End the daemon with its dataflows, and remove its service, token and state."""
    changes = {"id": daemon.id or "", "daemon_port": daemon.port}
    there = RemoteMachine(
        remote.cluster, remote.machine.model_copy(update=changes), remote.connection
    )
    service = None
    if daemon.service is not None:
        service = DaemonService(there, there.facts(), user=daemon.user_service)
        service.disable()
    if daemon.mine:
        stop_and_clean(there)
    elif daemon.pid is not None:
        there.call(
            "existing_daemons.end",
            sudo=True,
            timeout=STOP_TIMEOUT + 30.0,
            pid=daemon.pid,
            within=STOP_TIMEOUT,
        )
    if service is not None:
        service.remove_unit()
