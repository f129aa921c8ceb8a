"""Sizes and durations in files and on the command line: parsing and formatting; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_PART = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)", re.ASCII)
_MAX_DIGITS = 30
"""Most digits of a number; further ones are refused."""

_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "K": 1 << 10,
    "KB": 1 << 10,
    "KIB": 1 << 10,
    "M": 1 << 20,
    "MB": 1 << 20,
    "MIB": 1 << 20,
    "G": 1 << 30,
    "GB": 1 << 30,
    "GIB": 1 << 30,
}
SIZE_PATTERN = r"^\s*(\d+(\.\d+)?|\.\d+)\s*([bB]|[kKmMgG]([iI]?[bB])?)?\s*$"
_EXPECTED_SIZE = "a number of bytes, or a number and one of B, K, KB, M, MB, G, GB, as in 50MB"

_MILLISECONDS: Mapping[str, int] = {
    "": 1000,
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
_DURATION = re.compile(rf"(?:{_NUMBER})|(?:(?:{_NUMBER})(?:ms|s|m|h|d))+", re.ASCII)

MAX_BYTES = 1 << 62
"""Larger sizes are refused as typing errors."""

MAX_SECONDS = 1e9
"""Longer times (31 years) are refused as typing errors; they also overflow timers."""


def parse_size(value: int | float | str) -> int:
    """Return a size in bytes. Units are powers of 1024 in any case; raises `ValueError`."""
    if isinstance(value, str):
        return _parse_size_text(value)
    if isinstance(value, bool):
        raise ValueError(f"expected {_EXPECTED_SIZE}, found {str(value).lower()}")
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"expected {_EXPECTED_SIZE}, found {value}")
    return _bounded_size(int(value), str(value))


def _parse_size_text(text: str) -> int:
    match = _PART.fullmatch(text.strip())
    if not match:
        raise ValueError(f"invalid size {text!r}: expected {_EXPECTED_SIZE}")
    number, unit = match.groups()
    factor = _SIZE_UNITS.get(unit.upper())
    if factor is None:
        raise ValueError(f"unknown byte size unit {unit!r} in {text!r}: expected {_EXPECTED_SIZE}")
    if len(number) > _MAX_DIGITS:
        raise ValueError(f"size {text[:12]}... is too large")
    from fractions import Fraction  # slow to import, and few commands parse a size or a duration

    return _bounded_size(int(Fraction(number) * factor), text)


def _bounded_size(size: int, text: str) -> int:
    if size < 0:
        raise ValueError(f"size must not be negative, found {text}")
    if size > MAX_BYTES:
        raise ValueError(f"size {text[:24]} is too large")
    return size


def parse_duration(text: str) -> float:
    """Return the seconds in a text such as `30`, `10s`, `500ms` or `1h30m`; raises `ValueError`."""
    stripped = text.strip()
    if not _DURATION.fullmatch(stripped):
        raise ValueError(
            f"{text[:40]!r} is not a duration, expected e.g. 30, 10s, 5m, 1h30m or 500ms"
        )
    from fractions import Fraction

    parts = _PART.findall(stripped)
    too_long = any(len(number) > _MAX_DIGITS for number, _ in parts)
    terms = (Fraction(number[:_MAX_DIGITS]) * _MILLISECONDS[unit] for number, unit in parts)
    seconds = sum(terms) / 1000
    if too_long or seconds > MAX_SECONDS:
        raise ValueError(f"{text[:24]!r} is longer than 31 years")
    return float(seconds)


def check_seconds(value: float) -> float:
    """Return seconds that are finite, not negative and at most `MAX_SECONDS`, else `ValueError`."""
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number of seconds, found {value}")
    if value < 0:
        raise ValueError(f"must be at least 0 seconds, found {value:g}")
    if value > MAX_SECONDS:
        raise ValueError(f"must be at most {MAX_SECONDS:g} seconds, found {value:g}")
    return float(value)


def show_size(size: int) -> str:
    """Format a size: `12.3 KiB`, `4.0 MiB`, `2.1 GiB`."""
    for unit, shift in (("GiB", 30), ("MiB", 20)):
        if size >= 1 << shift:
            return f"{size / (1 << shift):.1f} {unit}"
    return f"{size / 1024:.1f} KiB"


def show_duration(seconds: float) -> str:
    """Format a duration: `350 ms`, `2.4 s`, `3 min 20 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def show_age(seconds: float) -> str:
    """Format the age of something in its largest unit: `12 s`, `3 min`, `5 h`, `2 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
