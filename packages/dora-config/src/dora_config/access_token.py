"""Token of a cluster: a secret, and the hash of the authority that certifies the coordinator.

``dora1.HASH.SECRET``: HASH is the SHA-256 of the authority's certificate (DER) in base64url without
padding. A text without that prefix is the secret alone, which a user has chosen; it cannot verify a
coordinator.

Machines have a token of their own, whose secret is derived from that of the cluster and does not
reveal it: it permits only what daemons do. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final, NamedTuple

PREFIX: Final = "dora1."
MACHINE: Final = "machine-"
"""Beginning of the secret of a machine's token."""
MAX_REPLACED: Final = 16
"""Number of replaced secrets that a successor lists."""
_HASH_LENGTH: Final = 43
"""Characters of a SHA-256 in base64."""


class Token(NamedTuple):
    secret: str
    authority: bytes | None = None
    """SHA-256 of the certificate of the cluster's authority."""

    @classmethod
    def parse(cls, text: str) -> Token:
        digest, dot, secret = text.removeprefix(PREFIX).partition(".")
        if text.startswith(PREFIX) and dot and secret and len(digest) == _HASH_LENGTH:
            try:
                return cls(secret, base64.b64decode(digest + "=", b"-_", validate=True))
            except binascii.Error:
                pass
        return cls(text)

    @classmethod
    def checked(cls, text: str) -> Token:
        """Parse a text that is a token or a secret; raises ValueError, without the secret."""
        if not text.isascii() or not text.isprintable():
            raise ValueError("has characters that a token cannot have")
        token = cls.parse(text)
        if token.authority is None and text.startswith(PREFIX):
            raise ValueError("has only a part of a token")
        return token

    def __str__(self) -> str:
        if self.authority is None:
            return self.secret
        digest = base64.urlsafe_b64encode(self.authority).rstrip(b"=").decode()
        return f"{PREFIX}{digest}.{self.secret}"

    def __repr__(self) -> str:
        return "Token(...)"  # tracebacks and logs must not contain the secret

    @property
    def is_of_machine(self) -> bool:
        return self.secret.startswith(MACHINE)

    @property
    def for_machine(self) -> Token:
        """The token of the machines of this cluster."""
        if self.is_of_machine:
            return self
        key = self.secret.encode("utf-8", "surrogateescape")
        derived = hmac.new(key, b"dora token of a machine", hashlib.sha256).hexdigest()
        return Token(f"{MACHINE}{derived}", self.authority)

    @property
    def digest(self) -> str:
        """Hash that identifies the token in a `Successor`; the machines' token has the same."""
        return hashlib.sha256(b"dora token\0" + self.for_machine.secret.encode()).hexdigest()

    def has_secret(self, given: str) -> bool:
        """Compare with the secret of a given token, in constant time."""
        other = Token.parse(given).secret
        return hmac.compare_digest(
            self.secret.encode("utf-8", "surrogateescape"),
            other.encode("utf-8", "surrogateescape"),
        )


class Successor(NamedTuple):
    """A token that replaces earlier ones of a process or an account.

    The files that contain the earlier ones stay unchanged: they may be managed by the user.
    """

    token: Token
    replaced: tuple[str, ...] = ()
    """Digests of the replaced tokens, oldest first."""

    @classmethod
    def parse(cls, text: str) -> Successor:
        """Parse the lines that `str` returns."""
        first, *digests = text.split()
        return cls(Token.parse(first), tuple(digests))

    def __str__(self) -> str:
        return "\n".join((str(self.token), *self.replaced))

    def replace(self, token: str | None) -> str:
        """Return the successor of ``token``; ``token`` itself if this does not replace it."""
        if token is None:
            return str(self.token)
        given = Token.parse(token)
        if given.digest not in (self.token.digest, *self.replaced):
            return token
        return str(self.token.for_machine if given.is_of_machine else self.token)

    def following(self, before: Successor | None) -> Successor:
        """Return this successor, which also replaces ``before`` and the tokens that it replaced."""
        if before is None or before.token.digest == self.token.digest:
            earlier = () if before is None else before.replaced
        else:
            earlier = (*before.replaced, before.token.digest)
        digests = tuple(dict.fromkeys((*earlier, *self.replaced)))
        return Successor(self.token, digests[-MAX_REPLACED:])
