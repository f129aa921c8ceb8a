"""Tokens that a coordinator accepts: the current one, and replaced ones for a while; pure.

Times are Unix times: a grace period continues over restarts.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from dora_config.access_token import Successor, Token


class RetiredToken(BaseModel):
    """A replaced token that is still accepted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str
    until: float
    since: float = 0.0

    def is_valid(self, now: float) -> bool:
        """Return whether it is accepted; never while a clock is before the replacement."""
        return self.since <= now < self.until


class TokenRecord(BaseModel):
    """Stored record of the tokens; field names are keys of the JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    successor: str
    """The current token and the digests of those that it replaces, as `Successor` writes it."""
    retired: tuple[RetiredToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """Result for a valid token.

    ``current``: the token was not replaced. ``machine``: it is the token of a machine, which
    permits only the requests of daemons.
    """

    current: bool
    machine: bool = False


class Tokens:
    """The tokens of one coordinator. `record` is to be stored after each change."""

    def __init__(self, successor: Successor, record: TokenRecord) -> None:
        self._successor = successor
        self.record = record

    @classmethod
    def load(cls, given: str, authority: bytes, record: TokenRecord | None) -> Tokens:
        """Start with the token that the coordinator was given.

        A token that a rotation replaced continues as its successor; another one is used as it is.
        """
        token = Token(Token.parse(given).secret, authority)
        if record is None:
            record = TokenRecord(successor=str(Successor(token)))
        before = Successor.parse(record.successor)
        current = Token.parse(before.replace(given))
        if current.digest != before.token.digest:  # the user has chosen another one
            before, record = Successor(token), record.model_copy(update={"retired": ()})
        successor = Successor(Token(current.secret, authority), before.replaced)
        return cls(successor, record.model_copy(update={"successor": str(successor)}))

    @property
    def current(self) -> Token:
        return self._successor.token

    @property
    def successor(self) -> Successor:
        """The current token with digests of the replaced ones, for files of clients and daemons."""
        return self._successor

    def check(self, given: str, now: float) -> Accepted | None:
        """Return whether a token is valid; None if it is not."""
        token = Token.parse(given)
        of_machine = token.is_of_machine
        current = self.current.for_machine if of_machine else self.current
        if current.has_secret(given):
            return Accepted(current=True, machine=of_machine)
        if any(one.digest == token.digest and one.is_valid(now) for one in self.record.retired):
            return Accepted(current=False, machine=of_machine)
        return None

    def rotate(self, secret: str, grace: float, now: float) -> None:
        """Replace the token; the present one and those in their grace period expire with it."""
        before = self._successor
        until = now + grace
        valid = [one for one in self.record.retired if one.is_valid(now)]
        retired = [one.model_copy(update={"until": min(one.until, until)}) for one in valid]
        retired.append(RetiredToken(digest=before.token.digest, until=until, since=now))
        self._successor = Successor(Token(secret, before.token.authority)).following(before)
        self.record = TokenRecord(successor=str(self._successor), retired=tuple(retired))
