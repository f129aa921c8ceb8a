"""Access of the daemon to its coordinator: addresses, token, and the claim that it obeys."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from dora_config.access import (
    AccessError,
    Endpoint,
    read_successor,
    split_address,
    write_private,
    write_successor,
)
from dora_config.access_token import Successor, Token
from dora_config.frozen import Frozen
from dora_config.protocol.claims import Claim
from dora_config.protocol.daemon import Coordinators
from dora_daemon.signatures import is_valid

logger = logging.getLogger("dora.daemon")


class KnownCoordinators(Frozen):
    """Coordinators of a cluster that a daemon has seen; also written by `dora cluster promote`."""

    authority: str = ""
    """SHA-256 of the certificate of the cluster's authority, in hexadecimal digits."""
    claim: Claim = Claim(epoch=0)
    """Claim of the highest rank. If it has no address, that of the command line is used."""
    standbys: tuple[str, ...] = ()
    """Addresses of coordinators that may take over."""

    def following(self, found: Coordinators, authority: str) -> KnownCoordinators | None:
        """Return the record with a coordinator whose claim was verified.

        None if a coordinator of the same cluster had a claim of a higher rank.
        """
        if authority == self.authority and found.claim.rank < self.claim.rank:
            return None
        return KnownCoordinators(authority=authority, claim=found.claim, standbys=found.standbys)

    def addresses(self, given: str) -> list[str]:
        """Return the addresses to try, in order; ``given``: address of the command line.

        The first is that of the coordinator: the given one until another has taken over.
        """
        claim = self.claim
        first = claim.address if claim.epoch > 1 else given
        return [one for one in dict.fromkeys([first, *self.standbys, claim.address, given]) if one]


class CoordinatorAccess:
    """Endpoint of the coordinator, with the newest token."""

    def __init__(
        self,
        folder: Path,
        given: Callable[[], Endpoint],
        is_valid: Callable[[Claim, str], bool] = is_valid,
    ) -> None:
        """``folder``: the daemon's; ``given``: the endpoint from arguments, environment and files
        of the account; ``is_valid``: whether an authority has signed a claim.
        """
        self._is_valid = is_valid
        self._token_path = folder / "token"
        self._known_path = folder / "coordinators.json"
        self._given = given
        self._successor: Successor | None = None
        self._known = KnownCoordinators()
        self._refused = b""
        """Content of the file whose invalid claim was logged."""
        self._turn = 0
        """Index of the address that is tried or used."""

    def endpoint(self) -> Endpoint:
        """Raises `AccessError` for an unusable token file."""
        given = self._given()
        self._successor = read_successor(self._token_path) or self._successor
        if self._successor is not None:
            given = given._replace(token=self._successor.replace(given.token))
        addresses = self._addresses(given)
        host, port = split_address(addresses[self._turn % len(addresses)])
        return given._replace(host=host, port=int(port))

    def _addresses(self, given: Endpoint) -> list[str]:
        known = self._read()
        if given.authority is not None and given.authority.hex() != known.authority:
            known = KnownCoordinators()  # the record is that of another cluster
        return known.addresses(str(given))

    def failed(self) -> bool:
        """Try the next address from now on; return whether all have been tried."""
        self._turn += 1
        with suppress(AccessError):
            if self._turn < len(self._addresses(self._given())):
                return False
        self._turn = 0
        return True

    def lost(self) -> None:
        """Begin with the first address again after the loss of a connection."""
        self._turn = 0

    # ------------------------------------------------------------------------ claims

    def known(self, authority: str) -> KnownCoordinators:
        """Return the coordinators of this cluster that were seen."""
        known = self._read()
        return known if known.authority == authority else KnownCoordinators()

    def follow(self, found: Coordinators, authority: str) -> str | None:
        """Keep the claim of a coordinator and the addresses of its standbys.

        Return why it is not to be obeyed, or None.
        """
        if not self._is_valid(found.claim, authority):
            return "its claim is not signed by the authority of this cluster"
        known = self._read()
        following = known.following(found, authority)
        if following is None:
            return f"{known.claim} has replaced it"
        if following != known:
            if following.claim.rank != known.claim.rank:
                logger.info("obeys %s", following.claim)
            self._known = following
            try:
                write_private(self._known_path, following.model_dump_json().encode())
            except OSError as error:  # full disk
                logger.error("%s: cannot be written: %s", self._known_path, error.strerror)
        return None

    def learn(self, claim: Claim, authority: str) -> None:
        """Keep the claim of the successor of a coordinator that refuses to lead."""
        known = self.known(authority)
        if claim.rank > known.claim.rank:
            found = Coordinators(claim=claim, standbys=known.standbys)
            if (problem := self.follow(found, authority)) is not None:
                logger.error("ignored %s: %s", claim, problem)

    def _read(self) -> KnownCoordinators:
        try:
            text = self._known_path.read_bytes()
            found = KnownCoordinators.model_validate_json(text)
        except (OSError, ValidationError):
            return self._known
        known = self._known
        newer = found.authority != known.authority or found.claim.rank >= known.claim.rank
        if newer and found != known and text != self._refused:
            if self._is_valid(found.claim, found.authority):
                self._known = found
            else:
                self._refused = text
                logger.error(
                    "%s: ignored %s: it is not signed by the authority of the cluster",
                    self._known_path,
                    found.claim,
                )
        return self._known

    # ------------------------------------------------------------------------ token

    def keep_token(self, text: str) -> None:
        """Use this token from now on; raises OSError if it is used but cannot be stored."""
        replaced: tuple[str, ...] = ()
        with suppress(AccessError):  # the token file has become unusable
            used = self.endpoint().token
            replaced = () if used is None else (Token.parse(used).digest,)
        self._successor = Successor(Token.parse(text), replaced).following(self._successor)
        write_successor(self._token_path, self._successor)
