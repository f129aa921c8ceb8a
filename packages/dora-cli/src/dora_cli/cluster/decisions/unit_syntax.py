"""Quoting of words, paths and variables for systemd; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_SPECIAL = re.compile(r'[\\"$`]')
_ESCAPED = r"\\\g<0>"


def exec_line(words: Sequence[str]) -> str:
    """Return the value of an Exec setting; systemd expands nothing in it."""
    return " ".join(word if _is_plain(word) else quote(word.replace("$", "$$")) for word in words)


def quote(text: str) -> str:
    """Return the text in double quotes; ``$`` keeps its meaning."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escape_specifiers(safe)}"'


def escape_specifiers(text: str) -> str:
    """Return the text with ``%`` doubled, so that systemd expands no specifier."""
    return text.replace("%", "%%")


def environment_file(variables: Mapping[str, str]) -> str:
    """Return the text of a file for EnvironmentFile, sorted by name."""
    pairs = sorted(variables.items())
    return "".join(f'{name}="{_SPECIAL.sub(_ESCAPED, text)}"\n' for name, text in pairs)


def _is_plain(word: str) -> bool:
    return word != "" and all(char.isalnum() or char in "/._-=,:@+" for char in word)
