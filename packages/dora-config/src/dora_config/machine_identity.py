"""Identity of a machine: its public key, the proof that it has the private key, its names; pure.

A *digest* is the SHA-256 of the public key (DER, SubjectPublicKeyInfo) in hexadecimal digits.
"""

from __future__ import annotations

import hashlib
from typing import Final

_NAME_LENGTH: Final = 64
"""X.520: longest common name."""
_DIGEST_DIGITS: Final = 24
"""Hexadecimal digits of a digest in a shortened name."""


def key_digest(public_key: bytes) -> str:
    """Return the digest of a public key (DER)."""
    return hashlib.sha256(public_key).hexdigest()


def certificate_name(machine: str, digest: str) -> str:
    """Return the common name in a machine's certificate: the machine, possibly shortened, and its
    key. A machine that is added again with another key has another name.
    """
    room = _NAME_LENGTH - _DIGEST_DIGITS - 1
    return f"{machine[:room]}:{digest[:_DIGEST_DIGITS]}"


def challenge_text(nonce: str, authority: str) -> bytes:
    """Return the text that a daemon signs (ECDSA, SHA-256) to prove its identity to a coordinator.

    ``authority``: SHA-256 of its authority's certificate, in hexadecimal digits.
    """
    return f"dora machine identity\n{authority}\n{nonce}\n".encode()
