"""Files of known hosts; decides whether a host key is accepted."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dora_cluster.ssh.client_config import HostSettings
from dora_cluster.ssh.errors import HostKeyRefused
from dora_config.errors import os_error_text

_writing = threading.Lock()

_HASHED = "|1|"


@dataclass(frozen=True, slots=True)
class Key:
    """A public host key."""

    kind: str
    """``ssh-ed25519``, ...; the blob begins with it."""
    blob: bytes

    @property
    def fingerprint(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint}"


@dataclass(frozen=True, slots=True)
class HostKeyLine:
    """A line that matches a host."""

    place: str
    """``FILE:NUMBER``"""
    marker: str
    """Empty, ``@revoked`` or ``@cert-authority``."""
    key: Key


@dataclass(frozen=True, slots=True)
class Known:
    """The lines for one host."""

    lines: tuple[HostKeyLine, ...]
    without_port: tuple[HostKeyLine, ...] = ()
    """Lines of the same host at port 22, which count if the key is the same."""

    @property
    def keys(self) -> tuple[HostKeyLine, ...]:
        return tuple(line for line in self.lines if not line.marker)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of key to prefer."""
        return tuple(dict.fromkeys(line.key.kind for line in (*self.keys, *self.without_port)))

    def has(self, key: Key) -> bool:
        lines = (*self.lines, *self.without_port)
        return any(line.key == key and not line.marker for line in lines)

    def revoked(self, key: Key) -> HostKeyLine | None:
        marked = (line for line in self.lines if line.marker == "@revoked" and line.key == key)
        return next(marked, None)

    @property
    def authorities(self) -> tuple[HostKeyLine, ...]:
        """Authorities for certificates, which are not verified here."""
        return tuple(line for line in self.lines if line.marker == "@cert-authority")


def host_name(host: str, port: int) -> str:
    """Return the host's name in known_hosts, with the port unless that is 22."""
    return host if port == 22 else f"[{host}]:{port}"


def find_known(files: Iterable[tuple[str, str]], host: str, port: int) -> Known:
    """Return the lines for a host from (name, text) of files."""
    listed = list(files)
    name = host_name(host, port)
    found = tuple(line for file in listed for line in _about(*file, name))
    if name == host:
        return Known(found)
    plain = tuple(line for file in listed for line in _about(*file, host) if not line.marker)
    return Known(found, plain)


def _about(name: str, text: str, host: str) -> Iterator[HostKeyLine]:
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        patterns, kind, encoded = words[:3]
        if not names(patterns, host):
            continue
        try:
            blob = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        yield HostKeyLine(f"{name}:{number}", marker, Key(kind, blob))


def names(patterns: str, host: str) -> bool:
    """Return whether the first field of a line, hashed or not, matches ``host``."""
    if not patterns.startswith(_HASHED):
        return matches(host, patterns.split(","))
    try:
        salt, digest = (base64.b64decode(part) for part in patterns[len(_HASHED) :].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(_digest(salt, host), digest)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name matches patterns with `*` and `?`; one after `!` must not match."""
    fits = False
    for pattern in patterns:
        escaped = pattern.removeprefix("!").lower().replace("[", "[[]")
        if fnmatchcase(name.lower(), escaped):
            if pattern.startswith("!"):
                return False
            fits = True
    return fits


def _digest(salt: bytes, host: str) -> bytes:
    return hmac.new(salt, host.lower().encode(), hashlib.sha1).digest()


def new_line(host: str, port: int, key: Key, salt: bytes | None) -> str:
    """Return the line for a new host; with a salt its name is hashed."""
    name = host_name(host, port)
    if salt is not None:
        words = (base64.b64encode(part).decode() for part in (salt, _digest(salt, name)))
        name = _HASHED + "|".join(words)
    return f"{name} {key.kind} {base64.b64encode(key.blob).decode()}"


def preferred(kinds: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    """Return host key algorithms; those with a known key come first."""
    algorithms = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}
    known = [name for kind in kinds for name in algorithms.get(kind, (kind,)) if name in offered]
    return (*known, *(name for name in offered if name not in known))


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
