"""Durations before now, and RFC 3339 times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dora_cli.logs.log_options import parse_moment


def test_moments() -> None:
    assert parse_moment("5m", now=1000.0) == 700.0
    exact = datetime(2026, 1, 31, 9, 30, tzinfo=UTC).timestamp()
    assert parse_moment("2026-01-31T09:30:00Z", now=0.0) == exact
    assert parse_moment("2026-01-31T10:30:00+01:00", now=0.0) == exact
    with pytest.raises(ValueError, match="'yesterday' is not a valid time; expected a duration"):
        parse_moment("yesterday", now=0.0)
