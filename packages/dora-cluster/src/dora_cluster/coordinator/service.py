"""The coordinator's systemd service, on this machine or on `coordinator.host` over SSH.

It is installed, removed and moved here; the coordinator's authority and its tokens are delivered.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from dora_cli import output
from dora_cli.polling import wait_until
from dora_cluster._version import __version__
from dora_cluster.bundle.install import Installer
from dora_cluster.bundle.layout import COORDINATOR, USERS_COORDINATOR
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.local import (
    MODULE,
    coordinator_arguments,
    end_process,
    find_process,
    start_coordinator,
)
from dora_cluster.decisions.preflight import (
    MachineFacts,
    NotReady,
    require_one_kind,
    require_ready,
)
from dora_cluster.decisions.promotion import StoreFacts, promoted
from dora_cluster.decisions.units import (
    address,
    coordinator_service_name,
    environment_file,
    render_coordinator_unit,
    unit_address,
    unit_version,
)
from dora_cluster.errors import SudoUnavailable
from dora_cluster.machines.daemon_service import SystemdService
from dora_cluster.machines.local_connection import NAME, LocalConnection
from dora_cluster.machines.remote_machine import RemoteMachine, connect_to
from dora_config.access import Moved, read_successor, successor_path, write_successor
from dora_config.access_token import Successor, Token
from dora_config.cluster.models import Cluster, Machine
from dora_config.control_plane import is_local, local_authority
from dora_config.errors import DoraError
from dora_config.protocol.daemon import CoordinatorCopy
from dora_config.spawn_argv import run_module
from dora_coordinator.io.succession import Restoration, Restored
from dora_coordinator.telemetry.export_settings import endpoint_variable, export_problem

START_TIMEOUT = 30.0
LAST_LINES = 12
POLL_INTERVAL = 0.2
END_TIMEOUT = 5.0
_SYSTEMD = Path("/run/systemd/system")
AUTHORITY = ".local/state/dora/coordinator/authority/ca.pem"
"""In the home of the account that the service runs as."""


RESTORE_TIMEOUT = 120.0


class CoordinatorMachine(RemoteMachine):
    """A connection to the coordinator's machine, which may be this one."""

    @property
    def service(self) -> str:
        return coordinator_service_name(self.cluster)

    @property
    def is_remote(self) -> bool:
        return self.cluster.coordinator.host is not None

    @property
    def where(self) -> str:
        return location(self.cluster)


def location(cluster: Cluster) -> str:
    """Return the coordinator's machine in messages."""
    return cluster.coordinator.target or NAME


class CoordinatorService(SystemdService):
    """The service on the coordinator's machine, installed or not."""

    def __init__(self, host: CoordinatorMachine, facts: MachineFacts, *, user: bool) -> None:
        secrets = f"{facts.home}/.config/{host.service}" if user else f"/etc/{host.service}"
        super().__init__(host, facts, user=user, secrets=secrets, name="")
        self.host = host
        self.before = f"{secrets}/before.service"
        """The unit that the last upgrade replaced; after a rollback, a copy of the current one."""

    def text(self) -> str | None:
        """Return the installed unit."""
        found = self.host.connection.read(self.unit)
        return None if found is None else found.decode(errors="replace")

    def text_before(self) -> str | None:
        """Return the unit that a rollback switches to."""
        found = self.read(self.before)
        return None if found is None else found.decode(errors="replace")

    def render(self, words: list[str], version: str) -> str:
        """Return the unit that starts the program ``words``."""
        return render_coordinator_unit(
            self.host.cluster,
            [*words, *coordinator_arguments(self.host.cluster), "--store", "redb"],
            version=version,
            token_file=self.token,
            user=None if self.user else self.facts.user,
            environment={} if self.host.is_remote else _own_environment(),
            environment_path=self.environment,
        )

    def keep_before(self, text: str) -> None:
        """Store ``text`` as the unit that a rollback switches to."""
        self.write(self.before, text.encode(), mode=0o600)

    def install(self, text: str, token: str) -> str:
        """Install and start the service with this unit; return a text for the user."""
        wanted: dict[str, bytes | None] = {
            self.token: f"{token}\n".encode(),
            self.unit: text.encode(),
        }
        if variables := self._telemetry():
            wanted[self.environment] = environment_file(variables).encode()
        return self.install_files(wanted)

    def _telemetry(self) -> dict[str, str]:
        """Return the variables of OpenTelemetry here; empty: the service keeps what it has."""
        if self.host.is_remote and self.host.machine.dora is None:
            return {}  # the copy of dora there is without OpenTelemetry
        return {name: text for name, text in os.environ.items() if name.startswith("OTEL_")}

    def disable(self) -> None:
        self.host.connection.check(["rm", "-f", self.before], sudo=self._sudo)
        super().disable()

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition; raises NotReady with ``what`` and the last lines of output."""
        if not wait_until(condition, START_TIMEOUT, every=POLL_INTERVAL):
            lines = "".join(f"\n  {line}" for line in self.journal(LAST_LINES))
            raise NotReady(
                f"{self.host.service} {what} at {address(self.host.cluster)} within "
                f"{START_TIMEOUT:g} s; its last lines:{lines}"
            )

    def wait_until_it_answers(self) -> None:
        cluster = self.host.cluster
        self.wait_until(lambda: queries.fetch_report(cluster) is not None, "does not answer")


def _own_environment() -> dict[str, str]:
    """Return the variables by which a service finds the same folders and packages as we do."""
    names = [name for name in os.environ if name.startswith("PYTHON")]
    names += [name for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME") if name in os.environ]
    found = {name: os.environ[name] for name in names}
    home = str(Path.home())
    return found if home == pwd.getpwuid(os.getuid()).pw_dir else {**found, "HOME": home}


@contextmanager
def open_coordinator_machine(cluster: Cluster) -> Iterator[CoordinatorMachine | None]:
    """Open the machine that has, or could have, the service.

    None: the file does not name it, and this machine cannot have the service.
    """
    coordinator = cluster.coordinator
    if coordinator.host is not None:
        machine = Machine(
            id="coordinator",
            host=coordinator.host,
            user=coordinator.user,
            port=coordinator.ssh_port,
            identity_file=coordinator.identity_file,
            dora=coordinator.dora,
        )
        with connect_to(machine) as connection:
            yield CoordinatorMachine(cluster, machine, connection)
    elif _can_be_here(cluster):
        yield this_machine(cluster)
    else:
        yield None


def this_machine(cluster: Cluster) -> CoordinatorMachine:
    """Return this machine as that of the coordinator."""
    here = Machine(id="coordinator", host=socket.gethostname())
    return CoordinatorMachine(cluster, here, LocalConnection())


def _can_be_here(cluster: Cluster) -> bool:
    """Return whether a service of this machine's systemd would have the coordinator's address."""
    if not _SYSTEMD.is_dir() or not is_local(cluster.coordinator.addr):
        return False
    with suppress(OSError):  # only root can read it
        return Path("/proc/1/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    return True


@contextmanager
def installed_service(cluster: Cluster) -> Iterator[CoordinatorService | None]:
    """Open the coordinator's service if it is installed and belongs to this cluster."""
    with open_coordinator_machine(cluster) as host:
        yield None if host is None else _find_service(host)


def _find_service(host: CoordinatorMachine) -> CoordinatorService | None:
    facts = host.facts()
    if not facts.service and not facts.user_service:
        return None
    service = CoordinatorService(host, facts, user=not facts.service)
    text = service.text()
    return service if text is not None and unit_address(text) == address(host.cluster) else None


def program_words(host: CoordinatorMachine, installer: Installer, *, user: bool) -> list[str]:
    """Return the words that start this version on the machine; installs it there if remote."""
    if not host.is_remote:
        return list(run_module(MODULE))
    if host.machine.dora is not None:
        return [host.machine.dora, "coordinator"]
    layout = USERS_COORDINATOR if user else COORDINATOR
    tree = installer.ensure_installed(host.connection, layout, lambda text: None).tree
    return [f"{tree}/bin/python", "-I", "-m", MODULE]


def start_service(cluster: Cluster, *, recreate_store: bool) -> bool:
    """Start the service and wait until it answers; return False if it is not installed."""
    with installed_service(cluster) as service:
        if service is None:
            if cluster.coordinator.host is not None:
                raise NotReady(
                    f"no coordinator answers at {address(cluster)}, and none is installed on "
                    f"{cluster.coordinator.target} (`coordinator.host`); install it: "
                    "dora cluster install"
                )
            return False
        name = service.host.service
        try:
            if recreate_store:
                service.stop()
                service.host.call("coordinator.put_store_aside")
            service.start()
        except SudoUnavailable as problem:
            raise NotReady(
                f"the coordinator's service {name} does not run, and only root can start it; run "
                f"`sudo systemctl start {name}` on {service.host.where}, then this command again"
            ) from problem
        service.wait_until_it_answers()
    return True


def service_remedy(cluster: Cluster) -> str | None:
    """Return how to repair a service that does not answer; None if it is not installed."""
    try:
        with installed_service(cluster) as service:
            if service is not None:
                name, where = service.host.service, service.host.where
                unit = "--user-unit" if service.user else "-u"
                return (
                    f"its service {name} on {where} is {service.state()}; see its output there: "
                    f"journalctl {unit} {name}; start it: dora cluster up"
                )
    except (DoraError, OSError) as problem:
        return f"its machine cannot be examined: {problem}"
    return None


def stop_service(cluster: Cluster) -> None:
    """Stop the service if it is installed; call it after the coordinator was destroyed."""
    try:
        with installed_service(cluster) as service:
            if service is None:
                return
            if not _ended(service):
                service.stop()
            output.remark(
                f"The coordinator's service {service.host.service} starts again with "
                f"{service.host.where}; see `dora cluster uninstall`"
            )
    except SudoUnavailable:
        name = coordinator_service_name(cluster)
        output.warn(f"the coordinator's service may still run: run `sudo systemctl stop {name}`")
    except (DoraError, OSError) as problem:
        output.warn(f"the coordinator's service was not examined: {problem}")


def _ended(service: CoordinatorService) -> bool:
    """Return whether it ends without `systemctl stop`, which only root can run."""
    ends = ("inactive", "failed")
    return wait_until(lambda: service.state() in ends, END_TIMEOUT, every=POLL_INTERVAL)


def trust_authority(service: CoordinatorService) -> None:
    """Wait for the authority of a started service, and store the account's token with its hash."""
    token = queries.endpoint_of(service.host.cluster).token
    if token is None:
        return
    path = f"{service.facts.home}/{AUTHORITY}"
    connection = service.host.connection
    service.wait_until(lambda: connection.read(path) is not None, "has no authority")
    certificate = (connection.read(path) or b"").decode("ascii")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    remember(service.host.cluster, Token(Token.parse(token).secret, digest))


def trust_local_authority(cluster: Cluster) -> None:
    """Add the authority of a coordinator on this machine to a token without one.

    The coordinator cannot: its address in the cluster file need not be one of its arguments.
    """
    address = queries.endpoint_of(cluster)
    if address.token is None or address.authority is not None:
        return
    digest = local_authority(address)
    if digest is not None:
        remember(cluster, Token(Token.parse(address.token).secret, digest))


def remember(cluster: Cluster, token: Token) -> None:
    """Store the token for a cluster's address in this account."""
    path = successor_path(cluster.coordinator.addr, cluster.coordinator.port)
    write_successor(path, Successor(token))


def deliver_token(remote: RemoteMachine) -> None:
    """Store the token of machines in the state directory of a daemon."""
    text = queries.endpoint_of(remote.cluster).token
    if text is None or Token.parse(text).authority is None:
        return
    coordinator = remote.cluster.coordinator
    successor = Successor(Token.parse(text).for_machine)
    successor = successor.following(
        read_successor(successor_path(coordinator.addr, coordinator.port))
    )
    folder = remote.call("daemon.prepare", name=remote.machine.daemon)["folder"]
    path = f"{PurePosixPath(folder).parent}/token"
    remote.connection.write(path, f"{successor}\n".encode(), mode=0o600)


@contextmanager
def open_place(cluster: Cluster) -> Iterator[CoordinatorMachine]:
    """Open the machine with the coordinator's address, also without systemd; raises NotReady."""
    if cluster.coordinator.host is None and is_local(cluster.coordinator.addr):
        yield this_machine(cluster)
        return
    with open_coordinator_machine(cluster) as host:
        if host is None:
            raise NotReady(
                f"{cluster.coordinator.addr} is not an address of this machine; run this command "
                "on the machine that has it, or name that machine as `coordinator.host`"
            )
        yield host


def copy_own_store(cluster: Cluster, installer: Installer, token: str) -> CoordinatorCopy:
    """Return a copy of the store on the coordinator's machine, where none runs; raises DoraError"""
    with open_place(cluster) as host:
        words = program_words(host, installer, user=True)
        printed = host.connection.check(
            [*words, "--copy", "--port", str(cluster.coordinator.port)],
            stdin=token.encode(),
            timeout=RESTORE_TIMEOUT,
        )
    return CoordinatorCopy.model_validate_json(printed.splitlines()[-1])


def restore_and_start(
    cluster: Cluster, installer: Installer, given: Restoration, *, as_user: bool | None
) -> tuple[Restored, str]:
    """Start the coordinator of a copy on its machine; return what was restored, and how it runs.

    ``as_user``: install it as a systemd service, of the account (True) or of the machine; None: as
    the service that is installed, otherwise in the background. What was there before is put back
    if it does not start.
    """
    with open_place(cluster) as host:
        words = program_words(host, installer, user=as_user is not False)
        service = _find_service(host)
        if service is not None:
            service.stop()  # of a coordinator that was replaced
        printed = host.connection.check(
            [*words, "--restore", "--port", str(cluster.coordinator.port)],
            stdin=given.model_dump_json().encode(),
            timeout=RESTORE_TIMEOUT,
        )
        restored = Restored.model_validate_json(printed.splitlines()[-1])
        remember(cluster, Token.parse(given.token))
        try:
            if as_user is not None:
                install_on(host, installer, given.token, user=as_user)
            elif service is not None:
                service.start()
                service.wait_until_it_answers()
            elif host.is_remote:
                _start(host, words, given.token)
            else:
                start_coordinator(cluster)
        except BaseException:
            if service is not None:
                service.stop()
            elif (made := _find_service(host)) is not None:
                made.disable()
                made.remove_unit()
            host.call("coordinator.undo")
            raise
    in_background = as_user is None and service is None
    return restored, "in the background" if in_background else "as a service"


def remove_promoted(remote: RemoteMachine, installer: Installer) -> None:
    """Remove the coordinator that `promote` has put on a machine, and its tokens.

    One of another cluster at the same address stays.
    """
    address, place = remote.machine.address, remote.cluster.coordinator
    token = queries.endpoint_of(remote.cluster).token
    authority = None if token is None else Token.parse(token).authority
    if address is None or authority is None:
        return
    answer = remote.call("coordinator.own_store", port=place.port)
    if StoreFacts.of(answer, authority.hex(), remote.machine.id) is None:
        return
    moved = Moved(address, place.port, remote.machine.id)
    host = CoordinatorMachine(promoted(remote.cluster, moved), remote.machine, remote.connection)
    if (service := _find_service(host)) is not None:
        _uninstall(service, installer)
    host.call("coordinator.remove", addr=address, port=place.port)


def start_promoted(cluster: Cluster, installer: Installer, *, recreate_store: bool) -> bool:
    """Start a promoted coordinator again in the background; False: it has a service."""
    token = queries.endpoint_of(cluster).token
    with installed_service(cluster) as service:
        if service is not None or token is None:
            return False
    with open_coordinator_machine(cluster) as host:
        if host is None or not host.is_remote:
            return False
        if recreate_store:
            host.call("coordinator.put_store_aside")
        _start(host, program_words(host, installer, user=True), token)
    return True


def _start(host: CoordinatorMachine, words: list[str], token: str) -> None:
    arguments = coordinator_arguments(host.cluster)
    started = host.call("coordinator.start", words=[*words, *arguments], token=token)
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
        host.call("coordinator.end")  # one that `dora cluster promote` started in the background
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
