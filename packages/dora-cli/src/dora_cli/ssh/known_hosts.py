"""Lines of `known_hosts`: the keys of a host, and the line for a new one; pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

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
