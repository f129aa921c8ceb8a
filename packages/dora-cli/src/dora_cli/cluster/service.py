"""The systemd service of a machine's daemon, through `systemctl` over SSH."""

from __future__ import annotations

from collections.abc import Sequence

from dora_cli.cluster.machines import OnMachine
from dora_cli.cluster.preflight import Facts, NotReady
from dora_cli.cluster.unit import STOP_TIMEOUT, Service, render_unit
from dora_cli.ssh import Finished, RemoteCommandFailed

_USER_CTL = 'XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$(id -u)}" exec "$@"'
_LINGERS = "lingers"
"""A file that says: before us, the user's services ended with the last logout."""
_REMOVE_EMPTY = 'rmdir "$1" 2>/dev/null || :'
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

    def install(self, dora: str, token: str | None, *, changed: bool) -> str:
        """Write unit and token, enable and start; "OK", or that it was so already."""
        text = self.rendered(dora)
        secret = f"{token or ''}\n".encode()
        link = self._on.link
        changed |= link.read(self.unit, sudo=self._sudo) != text
        changed |= link.read(self.token, sudo=self._sudo) != secret
        if not changed and self.is_active():
            self._ctl("enable", self._on.service)
            return "runs already"
        if self.user:
            link.check(["mkdir", "-p", self._units])
        link.write(self.unit, text, sudo=self._sudo)  # first: by it, `uninstall` finds the rest
        link.check(["mkdir", "-p", "-m", "700", self._secrets], sudo=self._sudo)
        link.write(self.token, secret, mode=0o600, sudo=self._sudo)
        if self.user:
            self._linger()
        self._ctl("daemon-reload")
        self._ctl("enable", self._on.service)
        self.restart()
        self._require_active()
        return "OK"

    def rendered(self, dora: str) -> bytes:
        """The unit as this version writes it."""
        user = None if self.user else self._facts.user
        service = Service(dora, self.token, user)
        return render_unit(self._on.cluster, self._on.machine, service).encode()

    def text(self) -> bytes | None:
        """The unit as it is there."""
        return self._on.link.read(self.unit, sudo=self._sudo)

    def put(self, text: bytes) -> None:
        """Have the unit be ``text``; it counts from the next restart on."""
        if self.text() != text:
            self._on.link.write(self.unit, text, sudo=self._sudo)
            self._ctl("daemon-reload")

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
        name = self._on.service
        runtime = f"/run/user/{self._facts.uid}/{name}" if self.user else f"/run/{name}"
        link.check(["rm", "-rf", self.token, runtime], sudo=self._sudo)
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
            said = "".join(f"\n  {line}" for line in done.stderr.strip().splitlines()[-8:])
            raise RemoteCommandFailed(
                self._on.link.name, f"`systemctl {' '.join(words)}` failed:{said}", done.code
            )

    def _run(self, *words: str, timeout: float = 60.0) -> Finished:
        argv: Sequence[str] = ["systemctl", *words]
        if self.user:
            argv = ["sh", "-c", _USER_CTL, "sh", "systemctl", "--user", *words]
        return self._on.link.run(argv, sudo=self._sudo, timeout=timeout)
