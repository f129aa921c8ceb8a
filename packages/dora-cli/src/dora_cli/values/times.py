"""Parser of points in time: a duration before now, or RFC 3339; pure."""

from __future__ import annotations

from datetime import datetime

from dora_config.yaml.quantities import parse_duration


def parse_moment(text: str, *, now: float) -> float:
    """Return the Unix time of `text`; a time without zone is local. Raises ValueError."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise ValueError(
            f"{text!r} is not a valid time; expected a duration before now (5m, 1h30m) or RFC 3339 "
            "(2026-01-31T09:30:00Z)"
        ) from None
