"""Stores a coordinator's tokens, and keeps the files of its account up to date."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
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
from dora_coordinator.state.tokens import PLAIN_CLOCK_TOLERANCE, Accepted, TokenRecord, Tokens

PLAIN_PERIOD = 7 * 24 * 3600.0
"""Seconds after an upgrade for which daemons of the version without TLS may connect."""

logger = logging.getLogger("dora.coordinator")


class TokenFileError(DoraError):
    """The stored tokens cannot be read; ``str()`` contains the remedy."""


def given_token(authority: Authority) -> str:
    """Return the token of this account; creates one if it has none."""
    given, made = ensure_token(authority.sha256)
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
        self._early_logged = False
        hosts = {DEFAULT_HOST, "localhost", *interfaces}
        self._successors = [successor_path(host, port) for host in sorted(hosts)]
        record = _read(path)
        self._tokens = Tokens.load(given, authority.sha256, record)
        if record is None and Token.parse(given).authority is None and authority.existed:
            logger.info(
                "this account's token is of a version without TLS; daemons of that version may "
                "connect for %d days, until `dora cluster rotate-token`",
                PLAIN_PERIOD / 24 / 3600,
            )
            now = time.time()
            self._tokens.allow_plain(now, now + PLAIN_PERIOD)
        if self._tokens.record != record and str(self._tokens.current) != given:
            self._store()
        self._end_plain(time.time())
        self._publish()

    @property
    def current(self) -> Token:
        return self._tokens.current

    def check(self, given: str) -> Accepted | None:
        now = time.time()
        self._end_plain(now)
        return self._tokens.check(given, now)

    def allows_plain(self) -> bool:
        now = time.time()
        if self._tokens.is_before_plain(now) and not self._early_logged:
            self._early_logged = True
            begin = self._tokens.record.plain_since - PLAIN_CLOCK_TOLERANCE
            logger.warning(
                "daemons of versions without TLS are refused before %s, because this machine's "
                "clock was later than now when their period began; set the clock if it is wrong, "
                "otherwise upgrade the daemons: `dora cluster upgrade`",
                f"{datetime.fromtimestamp(begin):%Y-%m-%d %H:%M:%S}",
            )
        return self._tokens.allows_plain(now)

    def _end_plain(self, now: float) -> None:
        """Store the end of the period, so that a clock that is set back later begins none."""
        if self._tokens.end_plain(now):
            logger.info("daemons of versions without TLS may not connect any more")
            with _unwritten_files_logged():
                self._store()

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
