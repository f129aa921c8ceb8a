"""Values of `--env` and its errors."""

from __future__ import annotations

import pytest

from dora_cli.options import parse_env_overrides


def test_values_are_kept_as_written() -> None:
    pairs = ["A=1", "B=01", "C=", "D=a=b", "A=2", "E=true"]
    assert parse_env_overrides(pairs) == {"A": "2", "B": "01", "C": "", "D": "a=b", "E": "true"}


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("A", "'A': expected KEY=VALUE"),
        ("=x", "'=x': empty key"),
        ("A B=x", "white space in the name 'A B'"),
        ("A=$HOME", "variables are not expanded"),
    ],
)
def test_malformed_pairs_are_refused(pair: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("$", r"\$")):
        parse_env_overrides([pair])
