"""Decides whether a host key is accepted, by the known_hosts files of the OpenSSH client.

`ssh-keygen -F` finds the lines of a host: `HostKeys` of paramiko has no patterns, no revoked keys,
and one key of a kind for each host.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, HostKeys

from dora_cluster.errors import HostKeyRefused
from dora_cluster.ssh.settings import HostSettings
from dora_config.errors import os_error_text

_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
"""Algorithms of a kind of key, where they have other names."""
_writing = threading.Lock()


@dataclass(frozen=True, slots=True)
class HostKeyLine:
    """A key in a known_hosts file."""

    file: str
    number: str
    mark: str
    """Empty, ``REVOKED`` or ``CA``."""
    kind: str
    blob: bytes

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


def lines_of(files: Iterable[str], name: str) -> Iterator[HostKeyLine]:
    """Yield the lines for a host; files that cannot be read have none, as in OpenSSH."""
    for file in files:
        words = ["ssh-keygen", "-F", name, "-f", file]
        printed = subprocess.run(words, capture_output=True, text=True, errors="replace").stdout
        lines = iter(printed.splitlines())
        for found, line in zip(lines, lines, strict=False):  # `# Host NAME found: line 3 REVOKED`
            number, _, mark = found.rpartition(" found: line ")[2].partition(" ")
            kind, blob = line.split()[2 if mark else 1 :][:2]
            with suppress(ValueError):  # malformed
                yield HostKeyLine(file, number, mark, kind, base64.b64decode(blob, validate=True))


def shown(kind: str, blob: bytes) -> str:
    """Return the fingerprint of a key as OpenSSH shows it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"


class KnownHosts(paramiko.MissingHostKeyPolicy):
    """Keys of one host; SSHClient calls this policy for each key, as it has no keys itself."""

    def __init__(self, machine: str, settings: HostSettings) -> None:
        self._machine = machine
        self._settings = settings
        host, port = settings.host_key_name, settings.port
        self._name = host if port == 22 else f"[{host}]:{port}"
        files = [*settings.known_hosts, *settings.global_known_hosts]
        self._lines = list(lines_of(files, self._name))
        self._at_port_22 = [one for one in lines_of(files, host) if port != 22 and not one.mark]
        """Lines for port 22, which count for another port if the key is the same."""

    def prefer_known(self, options: paramiko.SecurityOptions) -> None:
        """Prefer the kinds of the known keys in the negotiation with the server."""
        kinds = [line.kind for line in (*self._lines, *self._at_port_22) if not line.mark]
        known = [name for kind in kinds for name in _SIGNATURES.get(kind, (kind,))]
        options.key_types = sorted(options.key_types, key=lambda name: name not in known)

    def missing_host_key(self, _: object, __: object, key: paramiko.PKey) -> None:
        """Accept a known key, record a new one; raises HostKeyRefused for others."""
        keys = [line for line in self._lines if not line.mark]
        same = [line for line in (*self._lines, *self._at_port_22) if line.blob == key.asbytes()]
        marked = {line.mark: line for line in (*self._lines, *same) if line.mark}
        files = self._settings.known_hosts
        place = files[0] if files else "~/.ssh/known_hosts and remove UserKnownHostsFile none"
        its_key = f"its host key {shown(key.get_name(), key.asbytes())}"
        if any(line.mark == "REVOKED" for line in same):
            sentence = f"{its_key} is revoked in {marked['REVOKED']}"
        elif any(not line.mark for line in same):
            return None
        elif keys:
            lines = "".join(f"\n  {one} has {shown(one.kind, one.blob)}" for one in keys)
            sentence = (
                f"its host key has CHANGED: {its_key} is not known, but{lines}\n  The connection "
                "may be intercepted. If the machine was reinstalled, remove the old key: "
                f"ssh-keygen -f {keys[0].file} -R '{self._name}'"
            )
        elif "CA" in marked:
            sentence = (
                f"{marked['CA']} requires a certified host key, and dora does not verify "
                f"certificates; to accept {its_key}, add it to {place}"
            )
        elif not self._settings.accept_new:
            sentence = (
                f"{its_key} is not known, and StrictHostKeyChecking refuses new ones; connect "
                f"once with ssh, or add the key to {place}"
            )
        else:
            try:
                return self._record(key)
            except OSError as error:
                sentence = (
                    f"{its_key} cannot be recorded: {os_error_text(error)}; add the key to "
                    "another UserKnownHostsFile or to GlobalKnownHostsFile"
                )
        raise HostKeyRefused(self._machine, sentence)

    def _record(self, key: paramiko.PKey) -> None:
        if not self._settings.known_hosts:
            return
        hashed = self._settings.hash_known_hosts
        name = HostKeys.hash_host(self._name.lower()) if hashed else self._name
        path = Path(self._settings.known_hosts[0])
        with _writing:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(0o600)
            end = path.read_bytes()[-1:]
            with path.open("a") as file:
                begin = "" if end in (b"", b"\n") else "\n"
                file.write(f"{begin}{HostKeyEntry([name], key).to_line()}")
