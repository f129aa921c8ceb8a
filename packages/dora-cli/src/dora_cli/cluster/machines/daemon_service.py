"""The systemd service of a machine's daemon."""

from __future__ import annotations

from collections.abc import Callable

from dora_cli.cluster.decisions.preflight import MachineFacts, NotReady
from dora_cli.cluster.decisions.units import (
    STOP_TIMEOUT,
    ServicePaths,
    nodes_unit,
    render_environment,
    render_unit,
)
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.machines.systemd import SystemdService

LAST_LINES = 20


class DaemonService(SystemdService):
    """The service on one machine, installed or not."""

    FAMILY = "dora-daemon-"

    def __init__(self, remote: RemoteMachine, facts: MachineFacts, *, user: bool) -> None:
        secrets = f"{facts.home}/.config/dora-daemon" if user else "/etc/dora-daemon"
        super().__init__(remote, facts, user=user, secrets=secrets, name=f"{remote.machine.id}.")

    @classmethod
    def find(cls, remote: RemoteMachine, facts: MachineFacts) -> DaemonService | None:
        """Return the installed service, if there is one."""
        return next(iter(cls.find_all(remote, facts)), None)

    @classmethod
    def find_all(cls, remote: RemoteMachine, facts: MachineFacts) -> list[DaemonService]:
        """Return the installed services: that of the machine, and that of the user."""
        kinds = ((False, facts.service), (True, facts.user_service))
        return [cls(remote, facts, user=user) for user, installed in kinds if installed]

    def install(
        self, dora: str, token: str | None, *, stale: bool, before_restart: Callable[[], None]
    ) -> str:
        """Write unit, token and environment, enable and start; return a text for the user.

        ``stale``: the running daemon does not match the files, even if the files are right.
        ``before_restart`` is not called for a daemon that continues to run.
        """
        wanted = {self.token: f"{token or ''}\n".encode(), **self.wanted_files(dora)}
        result = self.install_files(wanted, stale=stale, before_restart=before_restart)
        if not self.is_active():
            lines = "".join(f"\n  {line}" for line in self.journal(LAST_LINES))
            raise NotReady(
                f"{self.remote.service} was started but does not run; its last lines:{lines}"
            )
        return result

    def _stop_for_good(self) -> None:
        super()._stop_for_good()
        self._run("stop", nodes_unit(self.remote.machine), timeout=STOP_TIMEOUT + 30.0)

    def wanted_files(self, dora: str) -> dict[str, bytes | None]:
        """Return unit and environment for the cluster file; None: the file must not exist."""
        cluster, machine = self.remote.cluster, self.remote.machine
        user = None if self.user else self.facts.user
        paths = ServicePaths(dora, self.token, self.environment, user)
        environment = render_environment(machine)
        return {
            self.environment: None if environment is None else environment.encode(),
            self.unit: render_unit(cluster, machine, paths).encode(),
        }

    def current_files(self) -> dict[str, bytes | None]:
        """Return unit and environment as they are on the machine."""
        return {path: self.read(path) for path in (self.environment, self.unit)}


def last_lines(remote: RemoteMachine, facts: MachineFacts, count: int) -> list[str]:
    """Return the last lines of output of a machine's daemon, whether a service or not."""
    service = DaemonService.find(remote, facts)
    if service is not None:
        return service.journal(count)
    found = remote.call("daemon.tail", name=remote.daemon, lines=count)
    return [*(found["lines"] or ["(it printed nothing)"]), f"(log: {found['path']})"]
