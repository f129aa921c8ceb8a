"""Installs the coordinator's systemd service, removes it, and lets another machine take over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dora_cli import output
from dora_cli._version import __version__
from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import COORDINATOR, USERS_COORDINATOR
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.local import (
    coordinator_arguments,
    end_process,
    find_process,
    is_local,
)
from dora_cli.cluster.coordinator.service import (
    CoordinatorMachine,
    CoordinatorService,
    installed_service,
    location,
    open_coordinator_machine,
    program_words,
)
from dora_cli.cluster.coordinator.trust import remember, trust_authority
from dora_cli.cluster.decisions.daemon_argv import without_name
from dora_cli.cluster.decisions.preflight import (
    MachineFacts,
    NotReady,
    require_one_kind,
    require_ready,
)
from dora_cli.cluster.decisions.units import (
    address,
    coordinator_service_name,
    unit_address,
    unit_version,
)
from dora_cli.polling import wait_until
from dora_config.access import address_text
from dora_config.access_token import Token
from dora_config.cluster.models import Cluster
from dora_config.errors import DoraError
from dora_coordinator.telemetry.export_settings import endpoint_variable, export_problem

START_TIMEOUT = 30.0
RESTORE_TIMEOUT = 120.0
POLL_INTERVAL = 0.2


def restore_and_start(
    cluster: Cluster,
    installer: Installer,
    copy: dict[str, Any],
    token: str,
    *,
    epoch: int,
    machine: str,
    service: bool,
    user: bool,
) -> dict[str, Any]:
    """Start the coordinator of a copy on its machine; return what that printed.

    ``service``: as a systemd service (``user``: of the account), otherwise in the background.
    """
    with open_coordinator_machine(cluster) as host:
        assert host is not None  # it has a host
        words = program_words(host, installer, user=user or not service)
        place = cluster.coordinator
        given = {
            "token": token,
            "state": copy,
            "epoch": epoch,
            "machine": machine,
            "address": address_text(place.addr, place.port),
        }
        restored: dict[str, Any] = json.loads(
            host.connection.check(
                [*words, "--restore", "--port", str(place.port)],
                stdin=json.dumps(given).encode(),
                timeout=RESTORE_TIMEOUT,
            ).splitlines()[-1]
        )
        remember(cluster, Token.parse(token))
        if service:
            install_on(host, installer, token, user=user)
        else:
            _start(host, words, token)
    return restored


def start_promoted(cluster: Cluster, installer: Installer) -> bool:
    """Start a promoted coordinator again in the background; False: it has a service."""
    token = queries.endpoint_of(cluster).token
    with installed_service(cluster) as service:
        if service is not None or token is None:
            return False
    with open_coordinator_machine(cluster) as host:
        if host is None or not host.is_remote:
            return False
        _start(host, program_words(host, installer, user=True), token)
    return True


def _start(host: CoordinatorMachine, words: list[str], token: str) -> None:
    arguments = coordinator_arguments(host.cluster)
    started = host.call("standby.start", words=[*words, *arguments], token=token)
    if not wait_until(
        lambda: queries.fetch_report(host.cluster) is not None, START_TIMEOUT, every=POLL_INTERVAL
    ):
        raise NotReady(
            f"the coordinator was started on {host.where} and does not answer at "
            f"{queries.endpoint_of(host.cluster)} within {START_TIMEOUT:g} s; open the port, or "
            f"see its output there: {started['log']}"
        )


def install_coordinator(cluster: Cluster, installer: Installer, token: str, *, user: bool) -> bool:
    """Install the service where it belongs, and print the result.

    Return False if that failed; True also if it is not this command's task.
    """

    def work() -> str | None:
        with open_coordinator_machine(cluster) as host:
            if host is None:
                output.remark(_why_not_here(cluster))
                return None
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
        return None  # the program that the file names may have OpenTelemetry, and logs if not
    return (
        f"{variable} is set, but the coordinator's service on {location(cluster)} runs from a copy "
        "of dora without OpenTelemetry and does not export metrics and traces: let the collector "
        f"scrape https://{address(cluster)}/metrics, or install dora-coordinator[otel] there and "
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
    names = ("this machine", f"coordinator ({location(cluster)})")
    reason = str(problem)
    for name in names:
        reason = without_name(reason, name)
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
        host.call("standby.end")  # one that `dora cluster promote` started in the background
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
            _uninstall(service, installer)
            return "OK"

    label = f"Uninstalling {coordinator_service_name(cluster)} from {location(cluster)}"
    return _run_and_print(label, cluster, work)


def _uninstall(service: CoordinatorService, installer: Installer) -> None:
    service.disable()
    host = service.host
    if host.is_remote:
        coordinator = host.cluster.coordinator
        host.call("coordinator.forget", addr=coordinator.addr, port=coordinator.port)
        if host.machine.dora is None:
            installer.remove(host.connection, USERS_COORDINATOR if service.user else COORDINATOR)
    service.remove_unit()
