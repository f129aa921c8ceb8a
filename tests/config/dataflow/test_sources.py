"""Sources of inputs."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from dora_config.dataflow.fields import SOURCE_PATTERN
from dora_config.dataflow.sources import (
    LogSource,
    OutputSource,
    TimerSource,
    parse_log_level,
    parse_source,
)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("camera/image", OutputSource(node="camera", output="image")),
        ("node/op/output", OutputSource(node="node", output="op/output")),
        ("dora/timer/secs/2", TimerSource(interval_ns=2_000_000_000)),
        ("dora/timer/millis/50", TimerSource(interval_ns=50_000_000)),
        ("dora/timer/micros/7", TimerSource(interval_ns=7_000)),
        ("dora/timer/nanos/9", TimerSource(interval_ns=9)),
        ("dora/timer/hz/20", TimerSource(interval_ns=50_000_000)),
        ("dora/timer/hz/0.5", TimerSource(interval_ns=2_000_000_000)),
        ("dora/timer/hz/1e3", TimerSource(interval_ns=1_000_000)),
        ("dora/logs", LogSource()),
        ("dora/logs/WARN", LogSource(level="warn")),
        ("dora/logs/stdout/camera", LogSource(level="stdout", node="camera")),
    ],
)
def test_sources(text: str, source: object) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("camera", "input must start with `<source>/`"),
        ("", "input must start with `<source>/`"),
        ("dora/xyz", "unknown dora input 'dora/xyz'"),
        ("dora/timr/secs/1", 'did you mean "timer"?'),
        ("dora/timer", "must specify unit and value, for example dora/timer/millis/50"),
        ("dora/timer/secs", "must specify unit and value"),
        ("dora/timer/secs/1/2", "must specify unit and value"),
        ("dora/timer/secs/", "must specify unit and value"),
        ("dora/timer/minutes/1", "expected one of secs, millis, micros, nanos, hz"),
        ("dora/timer/milis/1", 'did you mean "millis"?'),
        ("dora/timer/secs/0.5", "must be an integer"),
        ("dora/timer/secs/-1", "must be an integer"),
        ("dora/timer/secs/٣", "must be an integer"),
        ("dora/timer/secs/0", "must be non-zero"),
        ("dora/timer/secs/99999999999", "longer than 31 years"),
        ("dora/timer/hz/0", "hz must be a positive"),
        ("dora/timer/hz/-3", "hz must be a positive"),
        ("dora/timer/hz/nan", "hz must be a positive"),
        ("dora/timer/hz/inf", "hz must be a positive"),
        ("dora/timer/hz/fast", "hz must be a positive"),
        ("dora/timer/hz/1e-300", "longer than 31 years"),
        ("dora/timer/hz/1e12", "has an interval below one nanosecond"),
        ("dora/logs/loud", "unknown log level 'loud'"),
        ("dora/logs/warn/a b", "invalid character ' '"),
        ("dora/logs/warn/a/b", "unknown dora input"),
        ("a/", "must not be empty"),
        ("a//b", "empty path segment"),
        ("/b", "must not be empty"),
    ],
)
def test_refused_sources(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_source(text)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (10**9, "dora/timer/secs/1"),
        (1_500_000_000, "dora/timer/millis/1500"),
        (1_000, "dora/timer/micros/1"),
        (1, "dora/timer/nanos/1"),
    ],
)
def test_timers_are_formatted_in_the_coarsest_exact_unit(interval: int, text: str) -> None:
    assert str(TimerSource(interval_ns=interval)) == text


@given(st.integers(1, 10**18))
def test_formatted_timer_is_parsed_equal(interval: int) -> None:
    timer = TimerSource(interval_ns=interval)
    assert parse_source(str(timer)) == timer


@given(
    st.from_regex(r"[a-c]{1,3}(/[a-c]{1,2}){1,2}", fullmatch=True)
    | st.sampled_from(["dora/logs", "dora/logs/warn", "dora/logs/info/a"])
)
def test_formatted_source_is_parsed_equal(text: str) -> None:
    assert str(parse_source(text)) == text


@given(st.text(max_size=20) | st.from_regex(SOURCE_PATTERN, fullmatch=True))
def test_any_text_is_a_source_or_a_value_error(text: str) -> None:
    try:
        parse_source(text)
    except ValueError:
        return
    assert re.search(SOURCE_PATTERN, text)


def test_levels_in_any_case() -> None:
    assert parse_log_level("ERROR") == "error"
    assert parse_log_level("Warning") == "warn"
