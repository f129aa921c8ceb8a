"""Checks that machines reach a new address of the coordinator before anything is changed."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress

from dora_cli import output
from dora_cluster.coordinator.place import open_place
from dora_cluster.decisions.preflight import NotReady
from dora_cluster.machines.port_listener import PortListener
from dora_cluster.machines.remote_machine import (
    RemoteMachine,
    Report,
    on_machines,
)
from dora_cluster.ownership.reservation import Reservation
from dora_cluster.remote_program import network
from dora_config.access import address_text
from dora_config.cluster.models import Cluster, Machine

OPEN_TIMEOUT = 10.0
"""Seconds for a machine to open the port."""


def require_reachable(
    new: Cluster, machine: Machine | None, reached: Sequence[Machine], reservation: Reservation
) -> None:
    """Raise NotReady unless this computer and another machine reach the coordinator's new address.

    ``machine``: that of the address; None: the one that the file names. ``reached``: the machines
    that are connected over SSH.
    """
    host, port = new.coordinator.addr, new.coordinator.port
    address = address_text(host, port)
    others = [one for one in reached if machine is None or one.id != machine.id]

    def work(remote: RemoteMachine, report: Report) -> None:
        found = remote.call("network.reach", host=host, port=port)
        if not found["reached"]:
            raise NotReady(f"{address}: {found['reason']}")

    with _open_port(new):
        here = network.reach(host, port)
        if not here["reached"]:
            raise NotReady(
                f"this computer does not reach {address}: {here['reason']}; open the port there, "
                "or promote another standby; nothing was changed"
            )
        if not others:
            return
        label = f"Connecting to {address} from {{name}}"
        done = on_machines(new, label, work, machines=others, connections=reservation.connections)
    apart = [one.machine.id for one in done if not one.ok]
    if len(apart) == len(done):
        raise NotReady(
            f"no other machine reaches {address} ({', '.join(apart)}), so a coordinator there "
            "would have no machines; mend the network, or promote another standby; nothing was "
            "changed"
        )
    if apart:
        output.warn(f"{', '.join(apart)} cannot follow before {address} can be reached from there")


@contextmanager
def _open_port(new: Cluster) -> Iterator[None]:
    """Listen on the port of the coordinator, unless something does already; raises NotReady."""
    place = new.coordinator
    with open_place(new) as host, ExitStack() as stack:
        if host.is_remote:
            listener = PortListener(host, (place.port, place.port), secrets.token_hex(16))
            stack.callback(listener.end)
            listener.port(OPEN_TIMEOUT)
        else:
            with suppress(OSError):
                stack.enter_context(closing(_listen(place.addr, place.port)))
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
