"""Scalars of the YAML 1.2 core schema; numbers keep the text of the file; pure.

By this schema `on`, `yes` and `12:30` are texts. Numbers keep their text because an environment
variable set to `1.10` must not become `1.1`.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DIGITS = 400
"""Longer numbers are read as texts."""

PREFIX = "tag:yaml.org,2002:"
NULL, BOOL, INT, FLOAT = (PREFIX + kind for kind in ("null", "bool", "int", "float"))
STR, SEQ, MAP, MERGE = (PREFIX + kind for kind in ("str", "seq", "map", "merge"))

_PREFIXED_INT = re.compile(r"0o([0-7]+)|0x([0-9a-fA-F]+)")


# Text such as 007 is a code or a serial number, not a number.
_PATTERNS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _tag, _pattern, _first_characters in (
    (NULL, r"(~|null|Null|NULL|)", ["~", "n", "N", ""]),
    (BOOL, r"(true|True|TRUE|false|False|FALSE)", list("tTfF")),
    (INT, r"([-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        FLOAT,
        r"(?![-+]?0[0-9]+\Z)[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (MERGE, r"<<", ["<"]),
):
    for _character in _first_characters:
        _PATTERNS.setdefault(_character, []).append((_tag, re.compile(_pattern)))


def plain_tag(text: str) -> str:
    """Return the tag of a plain scalar with this text."""
    for tag, pattern in _PATTERNS.get(text[:1], ()):
        if len(text) <= MAX_DIGITS and pattern.fullmatch(text):
            return tag
    return STR


class WrittenInt(int):
    """An integer whose text differs from `str(value)`."""

    text: str


class WrittenFloat(float):
    """A float whose text differs from `str(value)`."""

    text: str


def scalar_value(tag: str, text: str) -> Any:
    """Return the value of a text under a tag of the core schema; raise `ValueError`."""
    if tag == STR:
        return text
    plain = plain_tag(text)
    if plain != tag and (tag, plain) != (FLOAT, INT):
        raise ValueError(f"{text!r} is not a !!{tag.removeprefix(PREFIX)}")
    if plain == NULL:
        return None
    if plain == BOOL:
        return text[0] in "tT"
    if plain == INT:
        return _int(text)
    if plain == FLOAT:
        return _float(text)
    return text


def _int(text: str) -> int:
    prefixed = _PREFIXED_INT.fullmatch(text)
    if prefixed:
        octal, hexadecimal = prefixed.groups()
        value = int(octal or hexadecimal, 8 if octal else 16)
    else:
        value = int(text)
    if str(value) == text:
        return value
    kept = WrittenInt(value)
    kept.text = text
    return kept


def _float(text: str) -> float:
    value = float(
        text.replace(".inf", "inf").replace(".nan", "nan") if text[-1].isalpha() else text
    )
    if str(value) == text:
        return value
    kept = WrittenFloat(value)
    kept.text = text
    return kept


def written(value: bool | int | float | str) -> str:
    """Return the text of a scalar as in the file; booleans in lower case."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, WrittenInt | WrittenFloat):
        return value.text
    return str(value)


def for_a_program(value: bool | int | float | str) -> str:
    """Return the text of a scalar for a program: as in the file, but `0x1F` as `31`.

    Programs parse numbers with `int`, which accepts only decimal digits by default.
    """
    text = written(value)
    return str(int(value)) if isinstance(value, int) and _PREFIXED_INT.fullmatch(text) else text
