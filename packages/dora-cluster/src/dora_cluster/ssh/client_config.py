"""Settings of a host, from `ssh -G` or, without the OpenSSH client, from paramiko's reader."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

from paramiko import ConfigParseError, SSHConfig

from dora_config.errors import DoraError

_OWN = Path(".ssh/config")
_SYSTEM = Path("/etc/ssh/ssh_config")
_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_DEFAULT_IDENTITIES = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
_SECONDS = 30.0
"""For `ssh -G`, which runs the commands of `Match exec`."""


class ConfigProblem(DoraError):
    """The SSH configuration cannot be read; ``str()`` has the text of its reader."""


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How to connect to a host; all names and paths are complete."""

    host: str
    user: str
    port: int
    identity_files: tuple[str, ...]
    identities_given: bool
    """Whether a file sets them; otherwise they are the defaults, most of which do not exist."""
    identities_only: bool
    identity_agent: str | None
    """A socket, "none", or None for SSH_AUTH_SOCK."""
    proxy_jump: str | None
    proxy_command: str | None
    host_key_name: str
    """Its name in known_hosts."""
    known_hosts: tuple[str, ...]
    """New keys go to the first; without files they are not recorded."""
    global_known_hosts: tuple[str, ...]
    accept_new: bool
    hash_known_hosts: bool


def account_name() -> str:
    """Return the name of this account; raises DoraError if it has none, as in some containers."""
    try:
        return getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        raise DoraError(f"user id {os.getuid()} has no name here; set the variable USER") from None


def _client() -> str | None:
    """Return the OpenSSH client; None without it, and for an account that it refuses."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return None
    return shutil.which("ssh")


def settings_for(host: str, user: str | None, port: int | None) -> HostSettings:
    """Return the settings for a host from the files of this account and machine.

    Raises ConfigProblem.
    """
    config = SSHConfig()
    client = _client()
    try:
        if client is not None:
            config.parse(_resolved(client, host, user, port).splitlines())
        else:
            account_name()  # paramiko's reader needs it
            for path in (Path.home() / _OWN, _SYSTEM):
                if path.is_file():
                    config.parse(path.read_text(errors="replace").splitlines())
        # also expands `%` tokens, which `ssh -G` leaves in place
        found: dict[str, str | list[str]] = dict(config.lookup(host))
    except ConfigParseError as error:
        raise ConfigProblem(f"SSH configuration for {host}: {error}") from None
    if client is None:
        given = {"user": user, "port": None if port is None else str(port)}
        found |= {name: value for name, value in given.items() if value is not None}
    return _settings(host, found)


def _resolved(client: str, host: str, user: str | None, port: int | None) -> str:
    """Return what `ssh -G` prints, with the home of the environment, as elsewhere in dora."""
    home = Path.home()
    options = [*(["-l", user] if user is not None else []), *(["-p", str(port)] if port else [])]
    with tempfile.NamedTemporaryFile("w", prefix="dora-ssh-") as file:
        file.write(
            f'Include "{home / _OWN}"\nMatch all\nInclude {_SYSTEM}\nMatch all\n'
            f"UserKnownHostsFile {_KNOWN_HOSTS.replace('~', str(home))}\n"
        )
        file.flush()
        try:
            done = subprocess.run(
                [client, "-G", "-F", file.name, *options, "--", host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigProblem(
                f"`ssh -G {host}` did not end within {_SECONDS:g} s; check `Match exec` in {_OWN}"
            ) from None
    if done.returncode != 0:
        raise ConfigProblem(f"`ssh -G {host}` failed: {done.stderr.strip()}")
    return done.stdout


def _settings(host: str, found: dict[str, str | list[str]]) -> HostSettings:
    home = str(Path.home())
    defaults = [f"{home}/.ssh/{name}" for name in _DEFAULT_IDENTITIES]

    def one(keyword: str, default: str = "") -> str:
        value = found.get(keyword, default)
        return value if isinstance(value, str) else value[0]

    def paths(values: str | Sequence[str]) -> tuple[str, ...]:
        words = values.split() if isinstance(values, str) else values
        return tuple(_home(word, home) for word in words if word.lower() != "none")

    name = one("hostname", host)
    port = one("port", "22")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigProblem(f"Port {port!r} of host {host}: not a port")
    identities = paths(found.get("identityfile", defaults))
    agent = one("identityagent", "SSH_AUTH_SOCK")
    jump, command = one("proxyjump", "none"), one("proxycommand", "none")
    return HostSettings(
        host=name,
        user=one("user") or account_name(),
        port=int(port),
        identity_files=identities,
        identities_given=any(not path.startswith(f"{home}/.ssh/id_") for path in identities),
        identities_only=one("identitiesonly").lower() in ("yes", "true"),
        identity_agent=None if agent == "SSH_AUTH_SOCK" else _home(agent, home),
        proxy_jump=None if jump.lower() == "none" else jump,
        proxy_command=None if command.lower() == "none" else command,
        host_key_name=one("hostkeyalias", name),
        known_hosts=paths(one("userknownhostsfile", _KNOWN_HOSTS)),
        global_known_hosts=paths(one("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS)),
        accept_new=one("stricthostkeychecking").lower() not in ("yes", "true"),
        hash_known_hosts=one("hashknownhosts").lower() in ("yes", "true"),
    )


def _home(path: str, home: str) -> str:
    return home + path[1:] if path == "~" or path.startswith("~/") else path
