"""The token that replaces the one a daemon was started with; kept in its state directory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dora_config.access import AccessError, Endpoint, read_successor, write_successor
from dora_config.access_token import Successor, Token


class ClusterToken:
    """Endpoint of the coordinator with the newest token."""

    def __init__(self, path: Path, given: Callable[[], Endpoint]) -> None:
        """``given``: the endpoint from arguments, environment and files of the account."""
        self._path = path
        self._given = given
        self._successor: Successor | None = None

    def endpoint(self) -> Endpoint:
        """Raises `AccessError` for an unusable token file."""
        given = self._given()
        self._successor = read_successor(self._path) or self._successor
        if self._successor is None:
            return given
        return replace(given, token=self._successor.replace(given.token))

    def keep(self, text: str) -> None:
        """Use this token from now on; raises OSError if it is used but cannot be stored."""
        replaced: tuple[str, ...] = ()
        with suppress(AccessError):  # a file that was spoilt meanwhile
            used = self.endpoint().token
            replaced = () if used is None else (Token.parse(used).digest,)
        self._successor = Successor(Token.parse(text), replaced).following(self._successor)
        write_successor(self._path, self._successor)
