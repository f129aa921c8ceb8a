"""The daemon of a machine: in the background, or as a systemd service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from dora_cli.cluster.decisions.preflight import MachineFacts, NotReady
from dora_cli.cluster.decisions.units import (
    STOP_TIMEOUT,
    ServicePaths,
    daemon_arguments,
    nodes_unit,
    render_environment,
    render_unit,
)
from dora_cli.cluster.machines.remote_machine import RemoteMachine
from dora_cli.cluster.machines.systemd import SystemdService

LAST_LINES = 20
HAND_OVER_TIMEOUT = 20.0


def hand_over(remote: RemoteMachine) -> None:
    """End the daemon; its dataflows keep running and wait for the next daemon."""
    remote.call("daemon.stop", name=remote.machine.daemon, hand_over=True, within=HAND_OVER_TIMEOUT)


def stop_and_clean(remote: RemoteMachine) -> None:
    """End the daemon with its dataflows, and remove its state."""
    _stop(remote, hand_over=False)
    remote.call("daemon.clean", name=remote.machine.daemon, keep_state=False)


def stop_for_service(remote: RemoteMachine) -> None:
    """End the daemon; its dataflows keep running, and its state stays for that of the service."""
    _stop(remote, hand_over=True)
    remote.call("daemon.clean", name=remote.machine.daemon, keep_state=True)


def _stop(remote: RemoteMachine, *, hand_over: bool) -> None:
    remote.call(
        "daemon.stop",
        name=remote.machine.daemon,
        hand_over=hand_over,
        within=STOP_TIMEOUT,
        timeout=STOP_TIMEOUT + 30.0,  # so that the program there reports a daemon that hangs
    )


def start_daemon(remote: RemoteMachine, dora: str, *, token: str | None = None) -> None:
    """Start the daemon; ``token`` None: with the token that is on the machine."""
    folder = remote.call("daemon.prepare", name=remote.machine.daemon)["folder"]
    if token is not None:
        remote.connection.write(f"{folder}/dora-token", f"{token}\n".encode(), mode=0o600)
    remote.connection.write(f"{folder}/environment", _environment(remote), mode=0o600)
    words = [dora, *daemon_arguments(remote.cluster, remote.machine)]
    remote.call("daemon.start", name=remote.machine.daemon, words=words)


def changed_settings(remote: RemoteMachine, facts: MachineFacts) -> str:
    """Return which settings of the file differ from those of the running daemon; may be empty."""
    if facts.daemon is None or not facts.daemon.words:
        return ""
    found = []
    if facts.daemon.arguments != tuple(daemon_arguments(remote.cluster, remote.machine)):
        found.append("labels or ports")
    if not facts.service and not facts.user_service:
        given = facts.environment or hashlib.sha256(b"{}").hexdigest()
        if given != hashlib.sha256(_environment(remote)).hexdigest():
            found.append("env")
    return " and ".join(found)


def _environment(remote: RemoteMachine) -> bytes:
    return json.dumps(remote.machine.env, sort_keys=True).encode()


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
    found = remote.call("daemon.tail", name=remote.machine.daemon, lines=count)
    return [*(found["lines"] or ["(it printed nothing)"]), f"(log: {found['path']})"]
