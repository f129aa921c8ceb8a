"""Known hosts on disk; decides whether a host key is accepted."""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

from dora_cli.ssh.client_config import HostSettings
from dora_cli.ssh.errors import HostKeyRefused
from dora_cli.ssh.known_hosts import Key, Known, find_known, host_name, new_line
from dora_config.errors import os_error_text

_writing = threading.Lock()


def _text(path: Path) -> str | None:
    """Return the content of a file; None if it does not exist or is a folder, as in OpenSSH."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def known_keys(settings: HostSettings) -> Known:
    """Return the keys of the host in the known_hosts files."""
    places = (*settings.known_hosts, *settings.global_known_hosts)
    files = [(place, text) for place in places if (text := _text(Path(place))) is not None]
    return find_known(files, settings.host_key_name, settings.port)


def check_host_key(machine: str, settings: HostSettings, known: Known, key: Key) -> None:
    """Accept a known key, record a new one; raises HostKeyRefused for others."""
    if (revoked := known.revoked(key)) is not None:
        raise HostKeyRefused(machine, f"its host key {key} is revoked in {revoked.place}")
    if known.has(key):
        return
    if known.keys:
        raise HostKeyRefused(machine, _changed(settings, known, key))
    if known.authorities:
        raise HostKeyRefused(
            machine,
            f"{known.authorities[0].place} requires a certified host key, and dora does not verify "
            f"certificates; add its key {key} to {_known_hosts(settings)}",
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
