"""Configuration and known hosts on disk; decides whether a host key is accepted."""

from __future__ import annotations

import glob
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path

from dora_cli.ssh.certificates import objection
from dora_cli.ssh.client_config import HostQuery, HostSettings, read_config
from dora_cli.ssh.errors import HostKeyRefused
from dora_cli.ssh.known_hosts import Key, Known, find_known, host_name, new_line
from dora_config import DoraError
from dora_config.errors import os_error_text

_SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_writing = threading.Lock()


def settings_for(host: str, user: str | None, port: int | None) -> HostSettings:
    """Return the settings for a host from the files of this account and machine."""
    home = Path.home()
    query = HostQuery(host, account_name(), str(home), user, port, socket.gethostname())
    own = (home / ".ssh" / "config", _SYSTEM_CONFIG)
    files = [(str(path), text) for path in own if (text := _text(path)) is not None]
    return read_config(query, files, _included, _succeeds)


def account_name() -> str:
    """Return the name of this account; raises DoraError if it has none, as in some containers."""
    try:
        return getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13
        raise DoraError(f"user id {os.getuid()} has no name here; set the variable USER") from None


def _text(path: Path) -> str | None:
    """Return the content of a file; None if it does not exist or is a folder, as in OpenSSH."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _included(name: str, pattern: str) -> Iterator[tuple[str, str]]:
    folder = "/etc/ssh" if name.startswith("/etc/ssh/") else str(Path.home() / ".ssh")
    for path in sorted(glob.glob(os.path.join(folder, os.path.expanduser(pattern)))):  # noqa: PTH118, PTH207, PTH111
        text = _text(Path(path))
        if text is not None:
            yield path, text


def _succeeds(command: str) -> bool:
    try:
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def known_keys(settings: HostSettings) -> Known:
    """Return the keys of the host in the known_hosts files."""
    places = (*settings.known_hosts, *settings.global_known_hosts)
    files = [(place, text) for place in places if (text := _text(Path(place))) is not None]
    return find_known(files, settings.host_key_name, settings.port)


def check_host_key(
    machine: str,
    settings: HostSettings,
    known: Known,
    key: Key,
    certificate: bytes | None = None,
) -> None:
    """Accept a known or certified key, record a new one; raises HostKeyRefused for others.

    ``certificate``: sent by the host with its key.
    """
    if (revoked := known.revoked(key)) is not None:
        raise HostKeyRefused(machine, f"its host key {key} is revoked in {revoked.place}")
    problem = _not_certified(settings, known, certificate)
    if problem is None or known.has(key):
        return
    if known.keys:
        raise HostKeyRefused(machine, _changed(settings, known, key))
    if known.authorities:
        raise HostKeyRefused(
            machine,
            f"{known.authorities[0].place} requires a certified key, but {problem}; have the "
            f"authority sign it again, or add its key {key} to {_known_hosts(settings)}",
        )
    if not settings.accept_new:
        raise HostKeyRefused(
            machine,
            f"its host key {key} is not known, and StrictHostKeyChecking refuses new ones; "
            f"connect once with ssh, or add the key to {_known_hosts(settings)}",
        )
    try:
        remember(settings, key)
    except OSError as error:
        raise HostKeyRefused(
            machine,
            f"its new host key {key} cannot be recorded: {os_error_text(error)}; add the key to "
            "another UserKnownHostsFile or to GlobalKnownHostsFile",
        ) from None


def _not_certified(settings: HostSettings, known: Known, certificate: bytes | None) -> str | None:
    """Return why no certificate proves the key; None if one does."""
    if certificate is None:
        return "it sent no certificate"
    authorities = [line.key for line in known.authorities]
    found = objection(certificate, authorities, settings.host_key_name, time.time())
    return None if found is None else f"its certificate is not valid: {found}"


def _changed(settings: HostSettings, known: Known, key: Key) -> str:
    lines = "".join(f"\n  {line.place} has {line.key}" for line in known.keys)
    name = host_name(settings.host_key_name, settings.port)
    file = known.keys[0].place.rpartition(":")[0]
    return (
        f"its host key has CHANGED: it shows {key}, but{lines}\n"
        "  The connection may be intercepted. If the machine was reinstalled, remove the old key: "
        f"ssh-keygen -f {file} -R '{name}'"
    )


def _known_hosts(settings: HostSettings) -> str:
    """Return the file for new keys, for a message."""
    return next(iter(settings.known_hosts), "~/.ssh/known_hosts and remove UserKnownHostsFile none")


def remember(settings: HostSettings, key: Key) -> None:
    """Append the key to the first known_hosts file, if there is one; create that if needed."""
    if not settings.known_hosts:
        return
    salt = secrets.token_bytes(20) if settings.hash_known_hosts else None
    line = new_line(settings.host_key_name, settings.port, key, salt)
    path = Path(settings.known_hosts[0])
    with _writing:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            begins_new = size == 0 or os.pread(handle, 1, size - 1) == b"\n"
            os.write(handle, f"{'' if begins_new else chr(10)}{line}\n".encode())
        finally:
            os.close(handle)
