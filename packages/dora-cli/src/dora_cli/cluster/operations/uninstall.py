"""`dora cluster uninstall`: removes the services and all that was installed with them."""

from __future__ import annotations

from dora_cli import output
from dora_cli.bundle.install import Installer, probe
from dora_cli.cluster.coordinator.service_install import uninstall_coordinator
from dora_cli.cluster.machines.daemon_service import DaemonService
from dora_cli.cluster.machines.parallel import Report, on_machines, success_count
from dora_cli.cluster.machines.remote_machine import RemoteMachine, layout_of
from dora_cli.cluster.ownership import known_clusters
from dora_cli.cluster.ownership.reservation import ClusterCommand, reserve
from dora_config.cluster.models import Cluster

_NOT_INSTALLED = "OK (it was not installed)"
_STILL_RUNS = "OK (not installed; its daemon keeps running, `dora cluster down` ends it)"


def uninstall_services(cluster: Cluster, installer: Installer, command: ClusterCommand) -> bool:
    """Remove everything; return whether that succeeded on every machine."""

    def work(remote: RemoteMachine, report: Report) -> str:
        return _uninstall(remote, installer, report)

    with reserve(cluster, command) as reservation:
        label = "Uninstalling dora-daemon-{id} from {target}"
        done = on_machines(cluster, label, work, describe=str, source=reservation)
        output.write(success_count(done))
        removed = uninstall_coordinator(cluster, installer)
    if not removed or not all(one.ok for one in done):
        return False
    if not any(one.result == _STILL_RUNS for one in done):
        known_clusters.forget(cluster)
    return True


def _uninstall(remote: RemoteMachine, installer: Installer, report: Report) -> str:
    facts = remote.facts()
    services = DaemonService.find_all(remote, facts)
    if not services:
        return _NOT_INSTALLED if facts.daemon is None else _STILL_RUNS
    layouts = [
        layout_of(remote.machine, user=service.user)
        for service in services
        if remote.machine.dora is None and not service.has_siblings()
    ]
    for layout in layouts:
        probe(remote.connection, layout)  # refuses a wrong prefix before anything is changed
    report("stopping the service")
    for service in services:
        service.disable()
    remote.call("daemon.clean", name=remote.daemon, keep_state=False)
    for layout in layouts:
        report("removing dora")
        installer.remove(remote.connection, layout)
    for service in services:
        service.remove_unit()
    return "OK"
