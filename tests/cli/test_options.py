"""Values that several commands parse."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from dora_cli import options


@pytest.mark.parametrize("text", ["true", "1", "YES"])
def test_true(text: str) -> None:
    assert options.optional_boolean(text) is True


@pytest.mark.parametrize("text", ["false", "0", "No"])
def test_false(text: str) -> None:
    assert options.optional_boolean(text) is False


def test_a_missing_boolean_is_none_and_another_word_is_a_usage_error() -> None:
    assert options.optional_boolean(None) is None
    with pytest.raises(typer.BadParameter, match="'maybe': expected true or false"):
        options.optional_boolean("maybe")


@pytest.mark.parametrize("text", ["", "fast", "[" * 100_000, '"\\ud800"'])
def test_json_that_is_malformed_or_not_serializable(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        options.json_value(text)


def test_advice_about_quotes_is_given_on_the_command_line_only(tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text("fast")
    with pytest.raises(ValueError, match="quote text twice"):
        options.json_value("fast")
    with pytest.raises(ValueError, match=r"it is not valid JSON \(.*\)$"):
        options.json_file(str(file))


def test_json() -> None:
    assert options.json_value('{"a": [1, null]}') == options.Json({"a": [1, None]})
