"""Values and texts of scalars."""

from __future__ import annotations

from typing import Any

import pytest

from dora_config.yaml.reader import read_document
from dora_config.yaml.scalars import for_a_program, written


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("0123", "0123"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("17", 17),
        ("-0", 0),
        ("0x10", 16),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("'17'", "17"),
        ("!!str 17", "17"),
        ("!!float 17", 17),
        ("9" * 400, int("9" * 400)),
        ("9" * 401, "9" * 401),
        ("1." + "0" * 400, "1." + "0" * 400),
        ("-.inf", float("-inf")),
        ("<<", "<<"),
    ],
)
def test_scalars(text: str, value: Any) -> None:
    document = read_document(f"key: {text}\n", "f")
    assert document.data == {"key": value}
    assert document.problems == []


@pytest.mark.parametrize("text", ["1.10", "0x10", "1e3", "+5", "-0", ".5", "17", "1.5"])
def test_numbers_keep_their_text(text: str) -> None:
    assert written(read_document(f"key: {text}", "f").data["key"]) == text


def test_booleans_are_lower_case() -> None:
    assert written(read_document("key: TRUE", "f").data["key"]) == "true"


def test_programs_get_prefixed_integers_in_decimal() -> None:
    values = read_document("[0x1F, 0o17, 1.10, TRUE, 007]", "f").data
    assert [for_a_program(value) for value in values] == ["31", "15", "1.10", "true", "007"]
