"""`dora cluster down`: dataflows, daemons, coordinator; then a look at every machine."""

from __future__ import annotations

from pathlib import Path

from dora_cli import output
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import USER
from dora_cli.cluster.coordinator import service as coordinator_service
from dora_cli.cluster.machines.daemon_service import Systemd
from dora_cli.cluster.machines.parallel import OnMachine, Say, on_machines
from dora_cli.cluster.operations import leftovers
from dora_cli.cluster.ownership import known_clusters as remembered
from dora_cli.cluster.ownership.reservation import Errand, Guard, guarded
from dora_cli.coordinator.client import Client, CoordinatorUnreachable
from dora_config.access import Endpoint
from dora_config.cluster.models import Cluster
from dora_config.protocol.control import Destroy, Destroyed

STOP_TIMEOUT = 60.0


def bring_down(address: Endpoint, cluster: Cluster | None, *, purge: bool) -> bool:
    """Whether nothing is left. ``cluster``: its machines; None: those that were recorded."""
    known = cluster if cluster is not None else remembered.find(address)
    if known is None:
        _end_coordinator(address, known)
        return True
    errand = Errand("down", Path(remembered.file_of(known)), refuses=False)
    former = remembered.former(known)
    with guarded(known, errand, [*known.machines, *former]) as guard:
        _end_coordinator(address, known)
        coordinator_service.stop(known)

        def work(on: OnMachine, say: Say) -> str:
            return _clear(on, guard, say, purge=purge)

        done = on_machines(known, "Clearing {name}", work, said=str, links=guard)
        left = leftovers.remove_left(guard)
    if not all(one.ok for one in done) or not left:
        output.remark("Run this command again when the machines that failed can be reached.")
        return False
    remembered.forget(known)
    return True


def _end_coordinator(address: Endpoint, known: Cluster | None) -> None:
    """End it with its daemons; CoordinatorUnreachable if no machines are known either."""
    try:
        with Client(address) as client:
            ended = client.ask(Destroy(force=True), Destroyed)
            client.wait_until_gone()
    except CoordinatorUnreachable as error:
        if known is None:
            raise
        output.remark(f"{error}; looking after the machines all the same")
        return
    for dataflow in ended.dataflows:
        output.write(f"Dataflow {dataflow.name or dataflow.uuid} stopped")
    output.write(f"Coordinator on {address} and its daemons ended")


def _clear(on: OnMachine, guard: Guard, say: Say, *, purge: bool) -> str:
    facts = on.facts()
    others = [one.occupant for one in guard.conflicts(on.machine) if one.kind == "other cluster"]
    if any(one.id == on.machine.id for one in others):
        return "OK (a daemon of another cluster runs there)"
    systemd = Systemd.found(on, facts)
    if systemd is not None:
        if systemd.is_active():
            say("stopping the service")
            systemd.stop()
        return "OK (its service starts again with the machine; see `dora cluster uninstall`)"
    say("stopping")
    on.ask("stop", name=on.daemon, hand_over=False, within=STOP_TIMEOUT)
    on.ask("clean", name=on.daemon, keep_state=False)
    if purge and on.machine.dora is None:
        say("removing dora")
        Installer().remove(on.link, USER)
    return "OK"
