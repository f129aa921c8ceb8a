"""Stores a coordinator's tokens, and keeps the files of its account up to date."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from dora_config.access import (
    DEFAULT_HOST,
    AccessError,
    ensure_token,
    replace_token,
    successor_path,
    write_private,
    write_successor,
)
from dora_config.access_token import Token
from dora_config.errors import DoraError
from dora_coordinator.io.authority import Authority
from dora_coordinator.state.tokens import Accepted, TokenRecord, Tokens

logger = logging.getLogger("dora.coordinator")


class TokenFileError(DoraError):
    """The stored tokens cannot be read; ``str()`` contains the remedy."""


def given_token(authority: Authority) -> str:
    """Return the token of this account; creates one if it has none. Raises TokenFileError."""
    given, made = ensure_token(authority.sha256)
    if Token.parse(given).is_of_machine:
        raise TokenFileError(
            "the token of this account is for a machine, and a coordinator needs the one of its "
            "cluster; copy ~/.config/dora/token of the account that ran `dora cluster up`, or "
            "delete the token here to get a new one"
        )
    if made is not None:
        logger.info("created a token for this account: %s", made)
    return given


class TokenFile:
    """The tokens of the coordinator on one port of this machine."""

    def __init__(
        self, given: str, authority: Authority, path: Path, interfaces: Sequence[str], port: int
    ) -> None:
        """Load ``path``, if it exists; raises :class:`TokenFileError`."""
        self._path = path
        self._given = given
        hosts = {DEFAULT_HOST, "localhost", *interfaces}
        self._successors = [successor_path(host, port) for host in sorted(hosts)]
        record = _read(path)
        self._tokens = Tokens.load(given, authority.sha256, record)
        if self._tokens.record != record and str(self._tokens.current) != given:
            self._store()
        self._publish()

    @property
    def current(self) -> Token:
        return self._tokens.current

    @property
    def text(self) -> str:
        """The content of the file, for a coordinator that takes over."""
        return self._tokens.record.model_dump_json()

    def check(self, given: str) -> Accepted | None:
        return self._tokens.check(given, time.time())

    def rotate(self, grace: float) -> Token:
        """Replace the token; raises OSError, with the token unchanged, if it cannot be stored.

        If the disk fails after the file was replaced, the file gets its earlier content again. If
        that fails too, it is logged, and the next start of the coordinator uses the new token.
        """
        before = self._tokens
        self._tokens = Tokens(before.successor, before.record)
        try:
            self._tokens.rotate(secrets.token_hex(32), grace, time.time())
            self._store()
        except BaseException:
            self._tokens = before
            with _unwritten_files_logged():
                if _read(self._path) not in (None, before.record):
                    self._store()
            raise
        with _unwritten_files_logged():
            replace_token(before.current, self.current)
        self._publish()
        return self.current

    def _store(self) -> None:
        write_private(self._path, self._tokens.record.model_dump_json(indent=1).encode())

    def _publish(self) -> None:
        """Store the token for the clients of this account."""
        successor = self._tokens.successor
        for path in self._successors:
            with _unwritten_files_logged():
                if successor.replaced or str(successor.token) != self._given or path.exists():
                    write_successor(path, successor)


@contextmanager
def _unwritten_files_logged() -> Iterator[None]:
    """Continue without a file of the account: the coordinator's own record has the token."""
    try:
        yield
    except OSError as error:
        logger.error("%s: cannot be written: %s", error.filename, error.strerror)
    except AccessError as error:
        logger.error("%s", error)


def _read(path: Path) -> TokenRecord | None:
    try:
        return TokenRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise TokenFileError(
            f"{path}: not a record of this coordinator's tokens; delete it, then the token of "
            "this account is used"
        ) from error
