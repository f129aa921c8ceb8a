"""The systemd service of a machine's daemon, through `systemctl` over SSH."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dora_cli.cluster.machines import OnMachine
from dora_cli.cluster.preflight import Facts, NotReady
from dora_cli.cluster.unit import (
    STOP_TIMEOUT,
    Service,
    nodes_unit,
    render_environment,
    render_unit,
)
from dora_cli.ssh import Finished, RemoteCommandFailed

_USER_CTL = 'XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}" exec "$@"'
_LINGERS = "lingers"
"""A file that says: before us, the user's services ended with the last logout."""
_LIVES = ("", ".new", ".next", ".next.new")
"""What the name of a file ends with while it is written."""
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
"""All that makes new files count, in one go: a machine that is cut off does none of it, or all."""
_FORGET_UNIT = """\
unit=$1 name=$2
shift 2
rm -f "$unit" || exit
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}"
systemctl ${1:+"$1"} daemon-reload || exit
systemctl ${1:+"$1"} reset-failed "$name" 2>/dev/null
cd "$HOME" || exit
while [ $# -gt 1 ]; do
    shift
    rmdir -p "$1" 2>/dev/null
done
exit 0
"""


class Systemd:
    """Of the machine, or (``user``) of the user's own manager."""

    def __init__(self, on: OnMachine, facts: Facts, *, user: bool) -> None:
        self._on = on
        self._facts = facts
        self.user = user
        self._sudo = not user
        home = facts.home
        if user:
            self._units = f"{home}/.config/systemd/user"
            self._secrets = f"{home}/.config/dora-daemon"
        else:
            self._units = "/etc/systemd/system"
            self._secrets = "/etc/dora-daemon"
        self.unit = f"{self._units}/{on.service}.service"
        self.token = f"{self._secrets}/{on.machine.id}.token"
        self.environment = f"{self._secrets}/{on.machine.id}.env"

    @classmethod
    def found(cls, on: OnMachine, facts: Facts) -> Systemd | None:
        """The service that is installed there, if one is."""
        if facts.service or facts.user_service:
            return cls(on, facts, user=not facts.service)
        return None

    # ------------------------------------------------------------------------ its life

    def start(self) -> None:
        self._ctl("start", self._on.service)

    def restart(self) -> None:
        """A new daemon process; dataflows go on."""
        self._ctl("restart", self._on.service, timeout=STOP_TIMEOUT + 30.0)

    def stop(self) -> None:
        """The daemon ends, and the machine's dataflows with it."""
        self._ctl("stop", self._on.service, timeout=STOP_TIMEOUT + 30.0)

    def is_active(self) -> bool:
        return self._run("is-active", "--quiet", self._on.service).code == 0

    def journal(self, lines: int) -> list[str]:
        """The last lines that the daemon printed."""
        done = self._on.link.run(self.journal_words(lines), sudo=self._sudo)
        return done.stdout.splitlines() if done.code == 0 else [done.stderr.strip()]

    def journal_words(self, lines: int, *, follow: bool = False) -> list[str]:
        """The command that shows the daemon's lines."""
        words = ["journalctl", "--no-pager", "--output=cat", "-n", str(lines)]
        words += ["--user-unit" if self.user else "-u", self._on.service]
        return [*words, *(["--follow"] if follow else [])]

    # ------------------------------------------------------------------------ installing

    def install(self, dora: str, token: str | None, *, stale: bool) -> str:
        """Write unit, token and environment, enable and start; "OK", or that it was so already.

        ``stale``: what runs is not what the files say, though they may be right.
        """
        wanted = {self.token: f"{token or ''}\n".encode(), **self.wanted(dora)}
        there = {path: self._read(path) for path in wanted}
        if there == wanted and not stale and self.is_active():
            self._ctl("enable", self._on.service)
            return "runs already"
        if self.user:
            self._on.link.check(["mkdir", "-p", self._units])
        if there[self.unit] is None:  # first: by it, `uninstall` finds the rest
            self._write(self.unit, wanted[self.unit] or b"")
        self._stage(wanted)
        if self.user:
            self._linger()
        self._commit("restart", wanted)
        self._require_active()
        return "OK"

    def wanted(self, dora: str) -> dict[str, bytes | None]:
        """Unit and environment as this version and the cluster file have them; None: no file."""
        user = None if self.user else self._facts.user
        service = Service(dora, self.token, self.environment, user)
        environment = render_environment(self._on.machine)
        return {
            self.environment: None if environment is None else environment.encode(),
            self.unit: render_unit(self._on.cluster, self._on.machine, service).encode(),
        }

    def written(self) -> dict[str, bytes | None]:
        """Unit and environment as they are there."""
        return {path: self._read(path) for path in (self.environment, self.unit)}

    def put(self, files: Mapping[str, bytes | None]) -> None:
        """Have these files be so; they count from the next restart on."""
        self._stage(files)
        self._commit("reload", files)

    def _stage(self, files: Mapping[str, bytes | None]) -> None:
        link = self._on.link
        link.check(["mkdir", "-p", "-m", "700", self._secrets], sudo=self._sudo)
        link.check(["rm", "-f", *(f"{path}.next" for path in files)], sudo=self._sudo)
        for path, content in files.items():
            if content is not None:
                self._write(f"{path}.next", content, mode=0o644 if path == self.unit else 0o600)

    def _commit(self, action: str, files: Mapping[str, bytes | None]) -> None:
        manager = "--user" if self.user else ""
        words = ["sh", "-c", _COMMIT, "sh", manager, self._on.service, action, *files]
        done = self._on.link.run(words, sudo=self._sudo, timeout=STOP_TIMEOUT + 90.0)
        if done.code != 0:
            raise self._refused(f"`systemctl {action}` of {self._on.service}", done)

    def _read(self, path: str) -> bytes | None:
        return self._on.link.read(path, sudo=self._sudo)

    def _write(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        self._on.link.write(path, content, mode=mode, sudo=self._sudo)

    def _linger(self) -> None:
        """Let the user's services start with the machine and outlive logins."""
        name = self._facts.user
        if self._lingers():
            return
        self._on.link.write(f"{self._secrets}/{_LINGERS}", b"", mode=0o600)
        done = self._on.link.run(["loginctl", "enable-linger", name])
        if done.code != 0:
            raise NotReady(
                f"services of {name} end when {name} logs out, and it may not change that itself "
                f"({done.stderr.strip()}); have root run `loginctl enable-linger {name}` there once"
            )

    def _lingers(self) -> bool:
        words = ["loginctl", "show-user", self._facts.user, "--property=Linger", "--value"]
        return self._on.link.run(words).stdout.strip() == "yes"

    def _require_active(self) -> None:
        if not self.is_active():
            said = "".join(f"\n  {line}" for line in self.journal(20))
            raise NotReady(f"{self._on.service} was started but does not run:{said}")

    def disable(self) -> None:
        """Stop the service for good, and take away all that `install` wrote but the unit."""
        link = self._on.link
        self._ctl("disable", "--now", self._on.service, timeout=STOP_TIMEOUT + 30.0)
        self._run("stop", nodes_unit(self._on.machine), timeout=STOP_TIMEOUT + 30.0)
        name = self._on.service
        runtime = f"/run/user/{self._facts.uid}/{name}" if self.user else f"/run/{name}"
        files = [f"{path}{end}" for path in (self.token, self.environment) for end in _LIVES]
        gone = [*files, f"{self.unit}.next", f"{self.unit}.new", runtime]
        link.check(["rm", "-rf", *gone], sudo=self._sudo)
        if self.user and not self.others():
            mark = f"{self._secrets}/{_LINGERS}"
            if link.read(mark) is not None:
                link.run(["loginctl", "disable-linger", self._facts.user])
                link.check(["rm", "-f", mark])
        link.script(_REMOVE_EMPTY, self._secrets, sudo=self._sudo)

    def remove(self) -> None:
        """Forget the unit: the last thing that is left of the service."""
        words = ["sh", "-c", _FORGET_UNIT, "sh", self.unit, self._on.service]
        if self.user:
            words += ["--user", ".config/systemd/user/default.target.wants", ".config/systemd/user"]
        self._on.link.check(words, sudo=self._sudo)

    def others(self) -> bool:
        """Whether units of other daemons are on the machine."""
        script = 'for one in "$1"/dora-daemon-*.service; do [ ! -e "$one" ] || echo "$one"; done'
        listed = self._on.link.script(script, self._units).split()
        return any(path != self.unit for path in listed)

    # ------------------------------------------------------------------------ below

    def _ctl(self, *words: str, timeout: float = 60.0) -> None:
        done = self._run(*words, timeout=timeout)
        if done.code != 0:
            raise self._refused(f"`systemctl {' '.join(words)}`", done)

    def _refused(self, what: str, done: Finished) -> RemoteCommandFailed:
        said = "".join(f"\n  {line}" for line in done.stderr.strip().splitlines()[-8:])
        return RemoteCommandFailed(self._on.link.name, f"{what} failed:{said}", done.code)

    def _run(self, *words: str, timeout: float = 60.0, sudo: bool = True) -> Finished:
        argv: Sequence[str] = ["systemctl", *words]
        if self.user:
            argv = ["sh", "-c", _USER_CTL, "sh", "systemctl", "--user", *words]
        return self._on.link.run(argv, sudo=self._sudo and sudo, timeout=timeout)
