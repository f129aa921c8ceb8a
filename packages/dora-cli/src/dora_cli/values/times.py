"""Points in time as users write them: a duration back from now, or RFC 3339. Pure."""

from __future__ import annotations

from datetime import datetime

from dora_config.yaml.quantities import parse_duration


def parse_moment(text: str, *, now: float) -> float:
    """Unix time of `text`; ValueError with the expected shapes. A time without zone is local."""
    try:
        return now - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise ValueError(
            f"{text!r} is no time, expected a duration back from now (5m, 1h30m) or RFC 3339 "
            "(2026-01-31T09:30:00Z)"
        ) from None
