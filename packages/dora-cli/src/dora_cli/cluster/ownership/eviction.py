"""Ends a daemon that a machine is not to have any more, and removes what it keeps there."""

from __future__ import annotations

from dora_cli.cluster.decisions.occupants import Occupant
from dora_cli.cluster.machines.daemon_service import Systemd
from dora_cli.cluster.machines.parallel import OnMachine, Say
from dora_cli.cluster.ownership.reservation import Guard, ask_occupancy

STOP_TIMEOUT = 60.0


def take_over(on: OnMachine, guard: Guard, say: Say) -> bool:
    """End the daemons of others, with their dataflows; whether there were any."""
    taken = [one.occupant for one in guard.conflicts(on.machine) if one.ends]
    for occupant in taken:
        say(f'ending daemon "{occupant.id}" of {occupant.user}')
        evict(on, occupant)
    return bool(taken)


def evict(on: OnMachine, occupant: Occupant) -> None:
    """End it with its dataflows, and remove its service, token, certificate and state."""
    changes = {"id": occupant.id or "", "daemon_port": occupant.port}
    there = OnMachine(on.cluster, on.machine.model_copy(update=changes), on.link)
    systemd = None
    if occupant.service is not None:
        systemd = Systemd(there, there.facts(), user=occupant.user_service)
        systemd.disable()
    if occupant.mine:
        there.ask("stop", name=there.daemon, hand_over=False, within=STOP_TIMEOUT, timeout=90.0)
        there.ask("clean", name=there.daemon, keep_state=False)
    elif occupant.pid is not None:
        given = {"pid": occupant.pid, "within": STOP_TIMEOUT}
        ask_occupancy(there.link, "end", sudo=True, timeout=90.0, **given)
    if systemd is not None:
        systemd.remove()
