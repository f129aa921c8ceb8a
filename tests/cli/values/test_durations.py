"""Durations and points in time as users write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dora_cli.values.durations import parse_duration, show_duration
from dora_cli.values.times import parse_moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30), ("0", 0), ("2.5", 2.5), ("10s", 10), ("5m", 300), ("1h30m", 5400),
        ("500ms", 0.5), ("1m500ms", 60.5), ("1d", 86400), (" 3s ", 3),
    ],
)  # fmt: skip
def test_what_a_duration_is(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "5x", "-3", "-3s", "1h 30m", "m5", "nan", "1e3"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration, expected e\.g\. 30, 10s, 5m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 20, "9" * 400, "99999d", "1" + "0" * 400 + "ms"])
def test_what_is_too_long(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than 31 years"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_parts_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


def test_durations_for_people() -> None:
    assert [show_duration(s) for s in (0.35, 2.44, 200.4)] == ["350 ms", "2.4 s", "3 min 20 s"]


def test_moments() -> None:
    assert parse_moment("5m", now=1000.0) == 700.0
    exact = datetime(2026, 1, 31, 9, 30, tzinfo=UTC).timestamp()
    assert parse_moment("2026-01-31T09:30:00Z", now=0.0) == exact
    assert parse_moment("2026-01-31T10:30:00+01:00", now=0.0) == exact
    with pytest.raises(ValueError, match="'yesterday' is no time, expected a duration back"):
        parse_moment("yesterday", now=0.0)
