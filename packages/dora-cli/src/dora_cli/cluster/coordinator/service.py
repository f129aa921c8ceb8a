"""The coordinator's systemd service, on this machine or on `coordinator.host` over SSH."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dora_cli.bundle.install import Installer
from dora_cli.bundle.layout import COORDINATOR, USERS_COORDINATOR
from dora_cli.cluster.coordinator import queries
from dora_cli.cluster.coordinator.local import MODULE, coordinator_arguments, is_local
from dora_cli.cluster.coordinator.local_connection import LocalConnection
from dora_cli.cluster.decisions.coordinator_unit import (
    address,
    coordinator_service_name,
    render_coordinator_unit,
    unit_address,
)
from dora_cli.cluster.decisions.preflight import MachineFacts, NotReady
from dora_cli.cluster.decisions.unit_syntax import environment_file
from dora_cli.cluster.machines.remote_machine import RemoteMachine, connect_to
from dora_cli.cluster.machines.systemd import SystemdService
from dora_cli.polling import wait_until
from dora_config.cluster.models import Cluster, Machine
from dora_config.spawn_argv import run_module

START_TIMEOUT = 30.0
LAST_LINES = 12
POLL_INTERVAL = 0.2
_SYSTEMD = Path("/run/systemd/system")


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
    return cluster.coordinator.target or "this machine"


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
