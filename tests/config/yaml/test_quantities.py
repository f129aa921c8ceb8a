"""Sizes, durations and seconds."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, strategies as st

from dora_config.yaml.quantities import (
    MAX_BYTES,
    SIZE_PATTERN,
    check_seconds,
    parse_duration,
    parse_size,
    show_age,
    show_duration,
    show_size,
)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (0, 0),
        (1024, 1024),
        (2.0, 2),
        ("17", 17),
        ("17 B", 17),
        ("2k", 2048),
        ("2KB", 2048),
        ("1.5M", 3 << 19),
        ("50mb", 50 << 20),
        (" 1 G ", 1 << 30),
        ("1GB", 1 << 30),
        ("1GiB", 1 << 30),
        (".5K", 512),
    ],
)
def test_sizes(value: int | float | str, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("5 parsecs", "unknown byte size unit 'parsecs'"),
        ("5T", "unknown byte size unit 'T'"),
        ("", "invalid size"),
        ("MB", "invalid size"),
        ("-5MB", "invalid size"),
        ("1e3", "invalid size"),
        ("٣", "invalid size"),
        (-1, "must not be negative"),
        (1.5, "found 1.5"),
        (True, "found true"),
        (MAX_BYTES + 1, "too large"),
        ("9" * 40, "too large"),
        ("9999999999999G", "too large"),
        (math.inf, "found inf"),
        (math.nan, "found nan"),
    ],
)
def test_refused_sizes(value: int | float | str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_size(value)


@given(st.integers(0, 1 << 30), st.sampled_from(["", "B", "K", "kb", "M", "Mb", "G", "GB"]))
def test_a_whole_number_and_a_unit_is_exact(number: int, unit: str) -> None:
    factor = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[unit.upper()[:1]]
    assert parse_size(f"{number}{unit}") == number * factor


@given(st.text(max_size=12) | st.from_regex(SIZE_PATTERN, fullmatch=True))
def test_pattern_of_the_schema_accepts_sizes(text: str) -> None:
    try:
        parse_size(text)
    except ValueError as error:
        refused = "too large" not in str(error)
    else:
        refused = False
    if refused:
        assert re.fullmatch(SIZE_PATTERN.strip("^$"), text, re.ASCII) is None
    else:
        assert re.search(SIZE_PATTERN, text) is not None


@given(st.floats(0, 1e9))
def test_seconds(value: float) -> None:
    assert check_seconds(value) == value


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, -math.inf, 1e10])
def test_refused_seconds(value: float) -> None:
    with pytest.raises(ValueError, match="seconds"):
        check_seconds(value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("0", 0),
        ("2.5", 2.5),
        ("10s", 10),
        ("5m", 300),
        (".5h", 1800),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        ("0.1s", 0.1),
        ("1d", 86400),
        (" 3s ", 3),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "x", "5x", "5M", "-3", "-3s", "1h 30m", "5 m", "1h30", "m5", "nan", "1e3", "٣"]
)
def test_refused_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration, expected e\.g\. 30, 10s, 5m"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["9" * 20, "9" * 9999, "99999d", "1" + "0" * 400 + "ms"])
def test_too_long_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than 31 years"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


def test_formatted_quantities() -> None:
    sizes = [show_size(size) for size in (512, 3 << 20, 5 << 29)]
    assert sizes == ["0.5 KiB", "3.0 MiB", "2.5 GiB"]
    durations = [show_duration(seconds) for seconds in (0.35, 2.44, 200.4)]
    assert durations == ["350 ms", "2.4 s", "3 min 20 s"]
    ages = [show_age(seconds) for seconds in (12, 185, 5 * 3600, 2.5 * 86400)]
    assert ages == ["12 s", "3 min", "5 h", "2 d"]
