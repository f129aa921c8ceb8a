"""Sizes in bytes and times in seconds, as the YAML writes them; pure."""

from __future__ import annotations

import math
import re

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)\s*$", re.ASCII)
_UNITS = {
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

MAX_BYTES = 1 << 62
"""Larger sizes are refused: they are typing errors."""

MAX_SECONDS = 1e9
"""Larger times (31 years) are refused: they are typing errors, and overflow timers."""

_EXPECTED_SIZE = "a number of bytes, or a number and one of B, K, KB, M, MB, G, GB, as in 50MB"


def parse_size(value: int | float | str) -> int:
    """A size in bytes. Units are powers of 1024, any case; raises `ValueError` with a sentence."""
    if isinstance(value, bool):
        raise ValueError(f"expected {_EXPECTED_SIZE}, found {str(value).lower()}")
    if isinstance(value, str):
        return _parse_size_text(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError(f"expected {_EXPECTED_SIZE}, found {value}")
    return _bounded(int(value), str(value))


def _parse_size_text(text: str) -> int:
    match = _SIZE.match(text)
    if not match:
        raise ValueError(f"invalid size {text!r}: expected {_EXPECTED_SIZE}")
    number, unit = match.groups()
    factor = _UNITS.get(unit.upper())
    if factor is None:
        raise ValueError(f"unknown byte size unit {unit!r} in {text!r}: expected {_EXPECTED_SIZE}")
    if len(number) > 30:
        raise ValueError(f"size {text[:12]}... is too large")
    if "." not in number:
        return _bounded(int(number) * factor, text)
    return _bounded(int(float(number) * factor), text)


def _bounded(size: int, text: str) -> int:
    if size < 0:
        raise ValueError(f"size must not be negative, found {text}")
    if size > MAX_BYTES:
        raise ValueError(f"size {text[:24]} is too large")
    return size


def check_seconds(value: float) -> float:
    """Seconds that are finite, at least 0 and below `MAX_SECONDS`; raises `ValueError`."""
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number of seconds, found {value}")
    if value < 0:
        raise ValueError(f"must be at least 0 seconds, found {value:g}")
    if value > MAX_SECONDS:
        raise ValueError(f"must be at most {MAX_SECONDS:g} seconds, found {value:g}")
    return float(value)
