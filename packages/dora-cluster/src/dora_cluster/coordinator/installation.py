"""Installs the coordinator as a systemd service where the cluster file says, and removes it."""

from __future__ import annotations

from collections.abc import Callable

from dora_cli import output
from dora_cluster._version import __version__
from dora_cluster.bundle.install import Installer
from dora_cluster.bundle.layout import COORDINATOR, USERS_COORDINATOR
from dora_cluster.coordinator.local import (
    end_process,
    find_process,
)
from dora_cluster.coordinator.place import (
    CoordinatorMachine,
    can_have_service,
    location,
    open_place,
)
from dora_cluster.coordinator.service import CoordinatorService, installed_service, program_words
from dora_cluster.coordinator.tokens import trust_authority
from dora_cluster.decisions.preflight import (
    MachineFacts,
    NotReady,
    require_one_kind,
    require_ready,
)
from dora_cluster.decisions.units import (
    address,
    coordinator_service_name,
    unit_address,
    unit_version,
)
from dora_cluster.machines.local_connection import NAME
from dora_config.cluster.models import Cluster
from dora_config.control_plane import is_local
from dora_config.errors import DoraError
from dora_coordinator.telemetry.export_settings import endpoint_variable, export_problem


def install_coordinator(cluster: Cluster, installer: Installer, token: str, *, user: bool) -> bool:
    """Install the service where it belongs, and print the result.

    Return False if that failed; True also if it is not this command's task.
    """

    def work() -> str | None:
        if not can_have_service(cluster):
            output.remark(_why_not_here(cluster))
            return None
        with open_place(cluster) as host:
            return install_on(host, installer, token, user=user)

    if (problem := _export_problem(cluster)) is not None:
        output.warn(problem)
    label = f"Installing {coordinator_service_name(cluster)} on {location(cluster)}"
    return _run_and_print(label, cluster, work)


def _export_problem(cluster: Cluster) -> str | None:
    """Return why the service will not export metrics and traces, although it should."""
    variable, coordinator = endpoint_variable(), cluster.coordinator
    if coordinator.host is None:
        return export_problem()
    if variable is None or coordinator.dora is not None:
        return None  # `coordinator.dora` may include OpenTelemetry; otherwise it logs a warning
    return (
        f"{variable} is set, but the coordinator's service on {location(cluster)} runs from a copy "
        "of dora without OpenTelemetry and does not export metrics and traces: let the collector "
        f"scrape https://{address(cluster)}/metrics, or install dora and OpenTelemetry there and "
        "name its program as `coordinator.dora`"
    )


def _run_and_print(label: str, cluster: Cluster, work: Callable[[], str | None]) -> bool:
    """Print the result of ``work``, if any; return whether it succeeded."""
    try:
        result = work()
    except (DoraError, OSError) as problem:
        output.write(f"{label}... FAILED: {_reason(problem, cluster)}")
        return False
    if result is not None:
        output.write(f"{label}... {result}")
    return True


def _reason(problem: Exception, cluster: Cluster) -> str:
    """Return the message without the name of the machine, which the line contains already."""
    names = (NAME, f"coordinator ({location(cluster)})")
    reason = str(problem)
    for name in names:
        reason = reason.removeprefix(f"{name}: ")
    return reason


def _why_not_here(cluster: Cluster) -> str:
    addr = cluster.coordinator.addr
    if not is_local(addr):
        return (
            f"The coordinator was not installed: {addr} is not an address of this machine; run "
            "this command on the machine that has it, or name that machine as `coordinator.host`"
        )
    return (
        "The coordinator was not installed: systemd does not run on this machine; "
        "`dora cluster up` starts it in the background"
    )


def install_on(host: CoordinatorMachine, installer: Installer, token: str, *, user: bool) -> str:
    """Install and start the service on a machine; return what was done. Raises DoraError."""
    facts = host.facts()
    require_ready(facts, host.machine, service=True)
    require_one_kind(facts, host.service, user=user)
    service = CoordinatorService(host, facts, user=user)
    old = service.text()
    if old is not None and unit_address(old) != address(host.cluster):
        raise NotReady(
            f"{host.service} there is the coordinator of another cluster, at "
            f"{unit_address(old) or 'an unknown address'}; uninstall that one first, or set "
            "another coordinator.port in this cluster file"
        )
    host.connection.check(["true"], sudo=not user)  # fails before anything is changed
    text = service.render(
        program_words(host, installer, user=user), _program_version(host, installer, facts)
    )
    if old is None and host.is_remote:
        host.call("coordinator.end")  # one that `dora cluster promote` started
        host.call("coordinator.claim")
    elif old is None:
        _replace_process(host)
    elif old != text:
        host.call("coordinator.copy_store", version=unit_version(old))
    result = service.install(text, token)
    if host.is_remote:
        trust_authority(service)
    service.wait_until_it_answers()
    return result


def _program_version(host: CoordinatorMachine, installer: Installer, facts: MachineFacts) -> str:
    if not host.is_remote:
        return __version__
    return installer.version if facts.dora is None else facts.dora


def _replace_process(host: CoordinatorMachine) -> None:
    """End the coordinator that `up` started here; the service uses its store."""
    process = find_process(host.cluster)
    if process is None:
        return
    if process.store != process.default_store:
        raise NotReady(
            f"a coordinator with another store runs on this machine (process {process.pid}, store "
            f"{process.store or 'in memory'}), and the service uses {process.default_store}; end "
            "that coordinator first"
        )
    end_process(process)


def uninstall_coordinator(cluster: Cluster, installer: Installer) -> bool:
    """Remove the service, and print the result; return whether that succeeded.

    Its store stays if it is on this machine, and is removed from another one.
    """

    def work() -> str | None:
        with installed_service(cluster) as service:
            if service is None:
                return None
            uninstall_service(service, installer)
            return "OK"

    label = f"Uninstalling {coordinator_service_name(cluster)} from {location(cluster)}"
    return _run_and_print(label, cluster, work)


def uninstall_service(service: CoordinatorService, installer: Installer) -> None:
    service.disable()
    host = service.host
    if host.is_remote:
        coordinator = host.cluster.coordinator
        host.call("coordinator.forget", addr=coordinator.addr, port=coordinator.port)
        if host.machine.dora is None:
            installer.remove(host.connection, USERS_COORDINATOR if service.user else COORDINATOR)
    service.remove_unit()
