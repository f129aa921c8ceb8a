"""Settings of a host, as `ssh -G` prints them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from paramiko import SSHConfig, SSHConfigDict

from dora_config.errors import DoraError

_SECONDS = 30.0
"""Limit for `ssh -G`, which runs the commands of `Match exec`."""
_CONFIG = """\
Include "{home}/.ssh/config"
Match all
Include /etc/ssh/ssh_config
Match all
UserKnownHostsFile {home}/.ssh/known_hosts {home}/.ssh/known_hosts2
ConnectTimeout 10
ServerAliveInterval 10
"""
"""Configuration for `ssh -G`; ``{home}`` is replaced with HOME of the environment."""


class ConfigProblem(DoraError):
    """The settings cannot be read; ``str()`` has the text of `ssh`."""


class HostSettings:
    """SSH settings of a host; empty texts are settings that no file has."""

    def __init__(self, found: SSHConfigDict) -> None:
        self._found = found
        self.host = self._text("hostname")
        self.user = self._text("user")
        self.port = found.as_int("port")
        self.identity_files = tuple(map(complete, found["identityfile"]))
        default = complete("~/.ssh/id_")
        self.identities_given = any(not one.startswith(default) for one in self.identity_files)
        """Whether a file sets identity files; otherwise they are the defaults, most of which do not
        exist."""
        self.identities_only = self._is_on("identitiesonly")
        agent = found.get("identityagent", "SSH_AUTH_SOCK")
        self.agent = os.environ.get(agent, "") if agent == "SSH_AUTH_SOCK" else complete(agent)
        self.proxy_jump = self._text("proxyjump")
        self.proxy_command = self._text("proxycommand")
        self.host_key_name = self._text("hostkeyalias") or self.host
        self.known_hosts = self._text("userknownhostsfile").split()
        """New keys go to the first; without files they are not recorded."""
        self.global_known_hosts = self._text("globalknownhostsfile").split()
        self.accept_new = not self._is_on("stricthostkeychecking")
        self.hash_known_hosts = self._is_on("hashknownhosts")
        self.connect_timeout = found.as_int("connecttimeout")
        """Seconds for each step: TCP, greeting, keys."""
        self.alive_interval = found.as_int("serveraliveinterval")
        self.silence = self.alive_interval * found.as_int("serveralivecountmax")
        """Seconds without an answer after which a connection is closed; 0: never."""

    def _text(self, keyword: str) -> str:
        text = self._found.get(keyword) or ""
        return "" if text.lower() == "none" else text

    def _is_on(self, keyword: str) -> bool:
        return self._text(keyword).lower() in ("yes", "true")


def complete(path: str) -> str:
    """Return a path with the home in place of `~`."""
    return str(Path.home() / path[2:]) if path.startswith("~/") else path


def settings_for(host: str, user: str | None, port: int | str | None) -> HostSettings:
    """Return the settings for a host; raises ConfigProblem."""
    options = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
    with tempfile.NamedTemporaryFile("w", prefix="dora-ssh-") as file:
        file.write(_CONFIG.format(home=Path.home()))
        file.flush()
        try:
            done = subprocess.run(
                ["ssh", "-G", "-F", file.name, *options, "--", host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError:
            raise ConfigProblem(
                "the command ssh was not found; install the OpenSSH client, for example with "
                "`apt install openssh-client`"
            ) from None
        except subprocess.TimeoutExpired:
            raise ConfigProblem(
                f"`ssh -G {host}` did not end within {_SECONDS:g} s; check `Match exec` in "
                "~/.ssh/config"
            ) from None
    if done.returncode != 0:
        raise ConfigProblem(f"`ssh -G {host}` failed: {done.stderr.partition(chr(10))[0]}")
    # also expands `%` tokens, which `ssh -G` leaves in place
    return HostSettings(SSHConfig.from_text(done.stdout).lookup(host))
