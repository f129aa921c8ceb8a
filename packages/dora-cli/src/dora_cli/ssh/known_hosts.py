"""Lines of `known_hosts`: which keys a host is known by, and the line for a new one; pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dora_cli.ssh.client_config import matches

_HASHED = "|1|"


@dataclass(frozen=True, slots=True)
class Key:
    """A public host key."""

    kind: str
    """``ssh-ed25519``, ...: how the blob itself begins."""
    blob: bytes

    @property
    def fingerprint(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is about a host."""

    place: str
    """``FILE:NUMBER``"""
    marker: str
    """Empty, ``@revoked`` or ``@cert-authority``."""
    key: Key


@dataclass(frozen=True, slots=True)
class Known:
    """All that is known of one host."""

    lines: tuple[Line, ...]
    without_port: tuple[Line, ...] = ()
    """Of the same host at the usual port: good enough if the key is the same."""

    @property
    def keys(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if not line.marker)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of key to ask the host for first."""
        return tuple(dict.fromkeys(line.key.kind for line in (*self.keys, *self.without_port)))

    def has(self, key: Key) -> bool:
        lines = (*self.lines, *self.without_port)
        return any(line.key == key and not line.marker for line in lines)

    def revoked(self, key: Key) -> Line | None:
        marked = (line for line in self.lines if line.marker == "@revoked" and line.key == key)
        return next(marked, None)

    @property
    def authorities(self) -> tuple[Line, ...]:
        """Whose certificates are believed; one that is revoked is none."""
        marked = (line for line in self.lines if line.marker == "@cert-authority")
        return tuple(line for line in marked if self.revoked(line.key) is None)


def host_name(host: str, port: int) -> str:
    """What known_hosts calls a host: its name, with the port unless that is 22."""
    return host if port == 22 else f"[{host}]:{port}"


def find_known(files: Iterable[tuple[str, str]], host: str, port: int) -> Known:
    """What (name, text) of files say of a host."""
    listed = list(files)
    name = host_name(host, port)
    found = tuple(line for file in listed for line in _about(*file, name))
    if name == host:
        return Known(found)
    plain = tuple(line for file in listed for line in _about(*file, host) if not line.marker)
    return Known(found, plain)


def _about(name: str, text: str, host: str) -> Iterator[Line]:
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
        yield Line(f"{name}:{number}", marker, Key(kind, blob))


def names(patterns: str, host: str) -> bool:
    """Whether the first field of a line, hashed or not, means ``host``."""
    if not patterns.startswith(_HASHED):
        return matches(host, patterns.split(","))
    try:
        salt, digest = (base64.b64decode(part) for part in patterns[len(_HASHED) :].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(_digest(salt, host), digest)


def _digest(salt: bytes, host: str) -> bytes:
    return hmac.new(salt, host.lower().encode(), hashlib.sha1).digest()


def new_line(host: str, port: int, key: Key, salt: bytes | None) -> str:
    """The line for a host that was met for the first time; with a salt its name is hashed."""
    name = host_name(host, port)
    if salt is not None:
        words = (base64.b64encode(part).decode() for part in (salt, _digest(salt, name)))
        name = _HASHED + "|".join(words)
    return f"{name} {key.kind} {base64.b64encode(key.blob).decode()}"


def preferred(kinds: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    """Host key algorithms with those first for which a key is known."""
    algorithms = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")}
    wanted = [name for kind in kinds for name in algorithms.get(kind, (kind,)) if name in offered]
    return (*wanted, *(name for name in offered if name not in wanted))
