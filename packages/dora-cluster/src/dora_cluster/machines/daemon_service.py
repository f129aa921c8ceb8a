"""Systemd services of a machine over SSH; its daemon as one of them, or in the background."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from dora_cluster.connection import FinishedCommand
from dora_cluster.decisions.preflight import MachineFacts, NotReady
from dora_cluster.decisions.units import (
    STOP_TIMEOUT,
    ServiceFiles,
    daemon_arguments,
    environment_file,
    nodes_unit,
    render_unit,
)
from dora_cluster.errors import RemoteCommandFailed
from dora_cluster.machines.remote_machine import RemoteMachine

LAST_LINES = 20
"""Lines of the journal in the error of a daemon that does not start."""
HAND_OVER_TIMEOUT = 20.0
"""Seconds for a daemon to leave its runners and end."""


_USER_CTL = 'XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}" exec "$@"'
_LINGERS = "lingers"
"""Marker file: lingering was off before `install` enabled it."""
_SUFFIXES = ("", ".new", ".next", ".next.new")
"""Suffixes of a file while it is replaced."""
_REMOVE_EMPTY = 'rmdir "$1" 2>/dev/null || :'
_COMMIT = """\
manager=$1 service=$2 action=$3
shift 3
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
for path; do
    if [ -e "$path.next" ]; then mv -f "$path.next" "$path"; else rm -f "$path"; fi || exit
done
systemctl $manager daemon-reload || exit
[ "$action" = reload ] && exit
systemctl $manager enable "$service" && systemctl $manager restart "$service"
"""
"""Activates all staged files in one command, so that an interruption activates all or none."""
_WAIT_FOR_MANAGER = """\
left=100
while [ ! -S "/run/user/$(id -u)/systemd/private" ] && [ $left -gt 0 ]; do
    sleep 0.2
    left=$((left - 1))
done
"""
"""Waits up to 20 s for the user's systemd, which `loginctl enable-linger` does not await."""
_REMOVE_UNIT = """\
unit=$1 name=$2
shift 2
rm -f "$unit" || exit
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
# The user's systemd may have ended with the lingering that `disable` turned off.
systemctl ${1:+"$1"} daemon-reload || [ "$1" = --user ] || exit
systemctl ${1:+"$1"} reset-failed "$name" 2>/dev/null
cd "$HOME" || exit
while [ $# -gt 1 ]; do
    shift
    rmdir -p "$1" 2>/dev/null
done
exit 0
"""
_OTHER_UNITS = """\
folder=$1 own=$2
shift 2
for one in "$folder"/"$1"*.service; do
    [ ! -e "$one" ] || [ "$one" = "$own" ] || echo "$one"
done
"""


class SystemdService:
    """A service of the machine, or (``user``) of the user's own systemd."""

    FAMILY = "dora-"
    """Names of units that share the folders of this one begin with it."""

    def __init__(
        self, remote: RemoteMachine, facts: MachineFacts, *, user: bool, secrets: str, name: str
    ) -> None:
        """``secrets``: folder of token and environment, whose files begin with ``name``."""
        self.remote = remote
        self.facts = facts
        self.user = user
        self._sudo = not user
        self._units = f"{facts.home}/.config/systemd/user" if user else "/etc/systemd/system"
        self._secrets = secrets
        self.unit = f"{self._units}/{remote.service}.service"
        self.token = f"{secrets}/{name}token"
        self.environment = f"{secrets}/{name}env"
        self.paths = ServiceFiles(self.token, self.environment, None if user else facts.user)

    # ------------------------------------------------------------------------ running

    def start(self) -> None:
        self._ctl("start", self.remote.service)

    def restart(self) -> None:
        self._ctl("restart", self.remote.service, timeout=STOP_TIMEOUT + 30.0)

    def stop(self) -> None:
        self._ctl("stop", self.remote.service, timeout=STOP_TIMEOUT + 30.0)

    def enable(self) -> None:
        self._ctl("enable", self.remote.service)

    def state(self) -> str:
        """Return the state in systemd's terms: active, activating, inactive, failed."""
        return self._run("is-active", self.remote.service, sudo=False).stdout.strip()

    def is_active(self) -> bool:
        return self.state() == "active"

    def journal(self, lines: int) -> list[str]:
        """Return the last lines of output."""
        done = self.remote.connection.run(self.journal_words(lines), sudo=self._sudo)
        return done.stdout.splitlines() if done.code == 0 else [done.stderr.strip()]

    def journal_words(self, lines: int, *, follow: bool = False) -> list[str]:
        """Return the command that prints the service's output."""
        words = ["journalctl", "--no-pager", "--output=cat", "-n", str(lines)]
        words += ["--user-unit" if self.user else "-u", self.remote.service]
        return [*words, *(["--follow"] if follow else [])]

    # ------------------------------------------------------------------------ files

    def replace_files(self, files: Mapping[str, bytes | None]) -> None:
        """Write these files (None: remove); they take effect at the next restart."""
        self._stage(files)
        self._commit("reload", files)

    def replace_files_and_restart(
        self,
        files: Mapping[str, bytes | None],
        *,
        linger: bool = False,
        before_restart: Callable[[], None] = lambda: None,
    ) -> None:
        """Write these files, enable the service and restart it.

        ``linger``: keep a service of the user running after a logout.
        ``before_restart`` is called immediately before the restart, after all other steps.
        """
        self._stage(files)
        if linger and self.user:
            self._enable_linger()
        before_restart()
        self._commit("restart", files)

    def install_files(
        self,
        wanted: Mapping[str, bytes | None],
        *,
        stale: bool = False,
        before_restart: Callable[[], None] = lambda: None,
    ) -> str:
        """Write these files, among them the unit, and start the service; return what was done.

        ``stale``: restart it even if it runs with these files already.
        """
        found = {path: self.read(path) for path in wanted}
        if found == wanted and not stale and self.is_active():
            self.enable()
            return "runs already"
        if self.user:
            self.remote.connection.check(["mkdir", "-p", self._units])
        if found[self.unit] is None:  # first, because `uninstall` finds the service by its unit
            self.write(self.unit, wanted[self.unit] or b"")
        self.replace_files_and_restart(wanted, linger=True, before_restart=before_restart)
        return "OK"

    def read(self, path: str) -> bytes | None:
        return self.remote.connection.read(path, sudo=self._sudo)

    def write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        self.remote.connection.write(path, content, mode=mode, sudo=self._sudo)

    def _stage(self, files: Mapping[str, bytes | None]) -> None:
        connection = self.remote.connection
        connection.check(["mkdir", "-p", "-m", "700", self._secrets], sudo=self._sudo)
        connection.check(["rm", "-f", *(f"{path}.next" for path in files)], sudo=self._sudo)
        for path, content in files.items():
            if content is not None:
                self.write(f"{path}.next", content, mode=0o644 if path == self.unit else 0o600)

    def _commit(self, action: str, files: Mapping[str, bytes | None]) -> None:
        manager = "--user" if self.user else ""
        words = ["sh", "-c", _COMMIT, "sh", manager, self.remote.service, action, *files]
        done = self.remote.connection.run(words, sudo=self._sudo, timeout=STOP_TIMEOUT + 90.0)
        if done.code != 0:
            raise self._failure(f"`systemctl {action}` of {self.remote.service}", done)

    # ------------------------------------------------------------------------ lingering

    def _enable_linger(self) -> None:
        """Start the user's services with the machine, and keep them running after a logout."""
        name = self.facts.user
        if self._lingers():
            return
        mark = f"{self._secrets}/{_LINGERS}"
        self.remote.connection.write(mark, b"", mode=0o600)
        done = self.remote.connection.run(["loginctl", "enable-linger", name])
        if done.code != 0:
            self.remote.connection.run(["rm", "-f", mark])
            raise NotReady(
                f"services of {name} end when {name} logs out, and {name} may not change that "
                f"({done.stderr.strip()}); run there once, as root: loginctl enable-linger {name}"
            )
        self.remote.connection.script(_WAIT_FOR_MANAGER)

    def _lingers(self) -> bool:
        words = ["loginctl", "show-user", self.facts.user, "--property=Linger", "--value"]
        return self.remote.connection.run(words).stdout.strip() == "yes"

    # ------------------------------------------------------------------------ removing

    def disable(self) -> None:
        """Stop the service permanently, and remove all files of `install` except the unit."""
        connection, name = self.remote.connection, self.remote.service
        self._stop_for_good()
        runtime = f"/run/user/{self.facts.uid}/{name}" if self.user else f"/run/{name}"
        files = [f"{path}{end}" for path in (self.token, self.environment) for end in _SUFFIXES]
        gone = [*files, f"{self.unit}.next", f"{self.unit}.new", runtime]
        connection.check(["rm", "-rf", *gone], sudo=self._sudo)
        if self.user and not self.has_siblings():
            mark = f"{self._secrets}/{_LINGERS}"
            if connection.read(mark) is not None:
                connection.run(["loginctl", "disable-linger", self.facts.user])
                connection.check(["rm", "-f", mark])
        connection.script(_REMOVE_EMPTY, self._secrets, sudo=self._sudo)

    def _stop_for_good(self) -> None:
        self._ctl("disable", "--now", self.remote.service, timeout=STOP_TIMEOUT + 30.0)

    def remove_unit(self) -> None:
        """Remove the unit, the last file of the service."""
        words = ["sh", "-c", _REMOVE_UNIT, "sh", self.unit, self.remote.service]
        if self.user:
            words += ["--user", ".config/systemd/user/default.target.wants", ".config/systemd/user"]
        self.remote.connection.check(words, sudo=self._sudo)

    def has_siblings(self) -> bool:
        """Return whether the machine has other units of the same family."""
        listed = self.remote.connection.script(_OTHER_UNITS, self._units, self.unit, self.FAMILY)
        return listed != ""

    # ------------------------------------------------------------------------ systemctl

    def _ctl(self, *words: str, timeout: float = 60.0) -> None:
        done = self._run(*words, timeout=timeout)
        if done.code != 0:
            raise self._failure(f"`systemctl {' '.join(words)}`", done)

    def _failure(self, what: str, done: FinishedCommand) -> RemoteCommandFailed:
        lines = "".join(f"\n  {line}" for line in done.stderr.strip().splitlines()[-8:])
        return RemoteCommandFailed(self.remote.connection.name, f"{what} failed:{lines}", done.code)

    def _run(self, *words: str, timeout: float = 60.0, sudo: bool = True) -> FinishedCommand:
        argv: Sequence[str] = ["systemctl", *words]
        if self.user:
            argv = ["sh", "-c", _USER_CTL, "sh", "systemctl", "--user", *words]
        return self.remote.connection.run(argv, sudo=self._sudo and sudo, timeout=timeout)


def hand_over(remote: RemoteMachine) -> None:
    """End the daemon; its dataflows keep running and wait for the next daemon."""
    remote.call("daemon.stop", name=remote.machine.daemon, hand_over=True, within=HAND_OVER_TIMEOUT)


def stop_and_clean(remote: RemoteMachine) -> None:
    """End the daemon with its dataflows, and remove its state."""
    _stop(remote, hand_over=False)
    remote.call("daemon.clean", name=remote.machine.daemon, keep_state=False)


def stop_for_service(remote: RemoteMachine) -> None:
    """End the daemon; its dataflows keep running, and the service continues with its state."""
    _stop(remote, hand_over=True)
    remote.call("daemon.clean", name=remote.machine.daemon, keep_state=True)


def _stop(remote: RemoteMachine, *, hand_over: bool) -> None:
    remote.call(
        "daemon.stop",
        name=remote.machine.daemon,
        hand_over=hand_over,
        within=STOP_TIMEOUT,
        timeout=STOP_TIMEOUT + 30.0,  # the limit of the machine must expire first
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
    """Return the settings of the file that the running daemon does not have; may be empty."""
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
        """Return the installed services: of the machine, and of the user."""
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
        unit = render_unit(cluster, machine, dora, self.paths)
        return {
            self.environment: environment_file(machine.env).encode() if machine.env else None,
            self.unit: unit.encode(),
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
