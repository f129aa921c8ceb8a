"""Host certificates, signed by an authority (`@cert-authority` in known_hosts); pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)

from dora_cli.ssh.known_hosts import Key

KINDS = (
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
)
"""Algorithms of certified host keys, best first."""


def objection(blob: bytes, authorities: Sequence[Key], host: str, now: float) -> str | None:
    """Return why a certificate is not valid for ``host`` at the time ``now``; None if it is."""
    try:
        certificate = _read(blob)
        authority = _key(certificate)
        certificate.verify_cert_signature()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        return f"it cannot be verified ({str(error) or type(error).__name__})"
    if authority not in authorities:
        return f"it is signed by {authority}, which is not an authority for this host"
    if certificate.type != SSHCertificateType.HOST:
        return "it is for a user, not for a host"
    if certificate.critical_options:
        return "it has critical options that dora does not support"
    principals = [name.decode(errors="replace").lower() for name in certificate.valid_principals]
    if not any(fnmatchcase(host.lower(), name.replace("[", "[[]")) for name in principals):
        return f"it is for {', '.join(principals) or 'no host'}"
    if now < certificate.valid_after:
        return f"it begins at {_time(certificate.valid_after)}"
    if now >= certificate.valid_before:
        return f"it ended at {_time(certificate.valid_before)}"
    return None


def _read(blob: bytes) -> SSHCertificate:
    size = int.from_bytes(blob[:4], "big")
    found = load_ssh_public_identity(blob[4 : 4 + size] + b" " + base64.b64encode(blob))
    if not isinstance(found, SSHCertificate):
        raise ValueError("it is a bare key")
    return found


def _key(certificate: SSHCertificate) -> Key:
    """Return the key that signed it."""
    text = certificate.signature_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    kind, encoded = text.split()[:2]
    return Key(kind.decode(), base64.b64decode(encoded))


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
