"""The coordinator's systemd service, on this machine or on `coordinator.host` over SSH."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dora_cli import output
from dora_cli.polling import wait_until
from dora_cluster.bundle.install import Installer
from dora_cluster.bundle.layout import COORDINATOR, USERS_COORDINATOR
from dora_cluster.coordinator import queries
from dora_cluster.coordinator.local import (
    MODULE,
    coordinator_arguments,
)
from dora_cluster.coordinator.place import CoordinatorMachine, can_have_service, open_place
from dora_cluster.decisions.preflight import (
    MachineFacts,
    NotReady,
)
from dora_cluster.decisions.units import (
    address,
    coordinator_service_name,
    environment_file,
    render_coordinator_unit,
    unit_address,
)
from dora_cluster.errors import RemoteCommandFailed, SudoUnavailable
from dora_cluster.machines.daemon_service import SystemdService
from dora_config.cluster.models import Cluster
from dora_config.errors import DoraError
from dora_config.spawn_argv import run_module

START_TIMEOUT = 30.0
"""Seconds for a started service to answer."""
LAST_LINES = 12
"""Lines of the journal in the error of a coordinator that does not start."""
POLL_INTERVAL = 0.2
"""Seconds between two checks of the service."""
END_TIMEOUT = 5.0
"""Seconds for the service to end by itself."""


class CoordinatorService(SystemdService):
    """The service on the coordinator's machine, installed or not."""

    def __init__(self, host: CoordinatorMachine, facts: MachineFacts, *, user: bool) -> None:
        secrets = f"{facts.home}/.config/{host.service}" if user else f"/etc/{host.service}"
        super().__init__(host, facts, user=user, secrets=secrets, name="")
        self.host = host
        self.before = f"{secrets}/before.service"
        """Unit that the last upgrade replaced; after a rollback, a copy of the current unit."""

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
            self.paths,
            version=version,
            environment={} if self.host.is_remote else _own_environment(),
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
        """Return the local variables of OpenTelemetry; empty: keep those of the service."""
        if self.host.is_remote and self.host.machine.dora is None:
            return {}  # the copy of dora on that machine does not include OpenTelemetry
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
    """Return the variables that give a service the folders and packages of this process."""
    names = [name for name in os.environ if name.startswith("PYTHON")]
    names += [name for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME") if name in os.environ]
    found = {name: os.environ[name] for name in names}
    home = str(Path.home())
    return found if home == pwd.getpwuid(os.getuid()).pw_dir else {**found, "HOME": home}


@contextmanager
def installed_service(cluster: Cluster) -> Iterator[CoordinatorService | None]:
    """Open the coordinator's service if it is installed and belongs to this cluster."""
    if not can_have_service(cluster):
        yield None
        return
    with open_place(cluster) as host:
        yield find_service(host)


def find_service(host: CoordinatorMachine) -> CoordinatorService | None:
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
        except RemoteCommandFailed as problem:
            if service.read(service.token) is not None:
                raise
            raise NotReady(
                f"the coordinator's service {name} on {service.host.where} is without its token: "
                "an installation was cut off; complete it: dora cluster install"
            ) from problem
        service.wait_until_it_answers()
    return True


def service_remedy(cluster: Cluster) -> str | None:
    """Return the remedy for a service that does not answer; None if it is not installed."""
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
    """Wait for the end of a service that was not stopped by systemctl, which only root can run."""
    ends = ("inactive", "failed")
    return wait_until(lambda: service.state() in ends, END_TIMEOUT, every=POLL_INTERVAL)
