"""Durations as users write them: `30`, `10s`, `5m`, `1h30m`, `500ms`. Pure."""

from __future__ import annotations

import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST = 1e9
"""Seconds; of more, clocks and timers of the system want nothing."""
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> float:
    """Seconds in `text`; ValueError with the expected shapes when it is not a duration."""
    stripped = text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped):
        return _bounded(float(stripped), text)
    parts = _PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise ValueError(f"{text!r} is not a duration, expected e.g. 30, 10s, 5m, 1h30m or 500ms")
    return _bounded(sum(float(number) * UNITS[unit] for number, unit in parts), text)


def _bounded(seconds: float, text: str) -> float:
    if seconds > LONGEST:
        raise ValueError(f"{text[:24]!r} is longer than 31 years")
    return seconds


def show_duration(seconds: float) -> str:
    """A duration for people: `350 ms`, `2.4 s`, `3 min 20 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def show_age(seconds: float) -> str:
    """How long ago something was, for people: `12 s`, `3 min`, `5 h`, `2 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
