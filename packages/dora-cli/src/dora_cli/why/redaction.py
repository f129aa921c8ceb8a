"""Removes secrets from reports; pure.

Values are removed by the names of their keys, by their form, and wherever a value that was removed
once occurs again, such as in a log line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

REDACTED: Final = "<redacted>"
SHORTEST: Final = 6
"""Characters of a value that is removed wherever it occurs; shorter ones are too common."""

_STRICT: Final = frozenset({"env", "env_overrides", "params"})
"""Keys below which values of users stand: random-looking ones are removed as well."""

_SECRET_NAME = re.compile(
    r"token|secret|passw|passphrase|pwd$|credential|private|api_?key|access_?key|auth|session|cookie"
    r"|(^|_)key$|(^|_)pat$|dsn|webhook|signature",
    re.IGNORECASE,
)
_WORDS = r"(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|private[_-]?key)"
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----[^\"]*")
_URL_PASSWORD = re.compile(
    r"(?P<start>[a-z][a-z0-9+.-]*://[^\s/@:\"']*):[^\s/@\"']+@", re.IGNORECASE
)
_BEARER = re.compile(r"(?P<start>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"(?P<start>[A-Za-z0-9_.-]*{_WORDS}[A-Za-z0-9_.-]*[\"'\\]*\s*[=:]\s*[\"'\\]*)"
    rf"(?!{REDACTED})[^\s\"'\\,;&}}]{{3,}}",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"(?P<start>--?[a-z-]*{_WORDS}[a-z-]*\s+)(?!{REDACTED})[^\s\"'\\-]\S*", re.I)
_KNOWN_TOKEN = re.compile(
    r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    r"|sk-[A-Za-z0-9_-]{16,}|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}"
    r"|AIza[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)"
)
_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{24,}")
_FORMS: Final = (
    (_PEM, REDACTED),
    (_URL_PASSWORD, rf"\g<start>:{REDACTED}@"),
    (_BEARER, rf"\g<start>{REDACTED}"),
    (_ASSIGNED, rf"\g<start>{REDACTED}"),
    (_OPTION, rf"\g<start>{REDACTED}"),
    (_KNOWN_TOKEN, REDACTED),
)


def looks_secret(name: str, value: str, *, strict: bool = True) -> bool:
    """Return whether a value looks secret by its name or its form.

    ``strict``: long values that look random count as well, as in environment variables.
    """
    if not value or value == REDACTED:
        return False
    if _SECRET_NAME.search(name):
        return True
    if _PEM.search(value) or _URL_PASSWORD.search(value) or _KNOWN_TOKEN.search(value):
        return True
    return strict and _RANDOM.fullmatch(value) is not None and _is_mixed(value)


def _is_mixed(text: str) -> bool:
    """Return whether a word has letters and digits like a random one, unlike a path."""
    digits = sum(character.isdigit() for character in text)
    return digits >= 4 and digits < len(text)


class Redactor:
    """Collects secret values, then removes them from texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """``secrets``: values that are known to be secret."""
        self._secrets: set[str] = set()
        self.removed = 0
        """Values that were replaced so far."""
        for secret in secrets:
            self.add(secret)

    def add(self, value: str) -> None:
        """Remove a value wherever it occurs from now on."""
        if len(value) >= SHORTEST:
            self._secrets.add(value)

    def add_variables(self, variables: Mapping[str, str]) -> None:
        """Add the values of environment variables that look secret."""
        for name, value in variables.items():
            if looks_secret(name, value):
                self.add(value)

    def values(self, value: Any, name: str = "", *, strict: bool = False) -> Any:
        """Return a JSON value without strings and numbers that look secret; ``name``: its key."""
        strict = strict or name in _STRICT
        match value:
            case dict():
                return {
                    key: self.values(one, str(key), strict=strict) for key, one in value.items()
                }
            case list() | tuple():
                return [self.values(one, name, strict=strict) for one in value]
            case bool() | None:
                return value
            case _ if looks_secret(name, str(value), strict=strict):
                self.add(str(value))
                self.removed += 1
                return REDACTED
            case _:
                return value

    def text(self, text: str) -> str:
        """Return a text without secret values and without what has the form of one."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            for form in {secret, _in_json(secret)}:
                text, count = self._replaced(text, form)
                self.removed += count
        for pattern, replacement in _FORMS:
            text, count = pattern.subn(replacement, text)
            self.removed += count
        return text

    @staticmethod
    def _replaced(text: str, secret: str) -> tuple[str, int]:
        count = text.count(secret)
        return (text.replace(secret, REDACTED), count) if count else (text, 0)


def _in_json(text: str) -> str:
    """Return a text as it is written inside a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
