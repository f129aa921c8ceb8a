"""Ids of nodes, ports and machines."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, strategies as st

from dora_config.errors import InvalidId
from dora_config.ids import (
    DATA_ID_PATTERN,
    LABEL_KEY_PATTERN,
    LABEL_PATTERN,
    MACHINE_ID_PATTERN,
    MAX_FILE_STEM,
    NODE_ID_PATTERN,
    file_stem,
    log_file_name,
    parse_data_id,
    parse_label,
    parse_machine_id,
    parse_node_id,
)


@pytest.mark.parametrize("text", ["a", "camera-1", "a.b_c", "A9", "-x", "_", "doraemon", "x.dora"])
def test_node_ids(text: str) -> None:
    assert parse_node_id(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "node id must not be empty"),
        ("dora", "reserved"),
        (".hidden", "must not start with '.'"),
        ("a b", "contains invalid character ' '"),
        ("a/b", "contains invalid character '/'"),
        ("caméra", "contains invalid character 'é'"),
        ("a\n", "contains invalid character '\\n'"),
    ],
)
def test_refused_node_ids(text: str, reason: str) -> None:
    with pytest.raises(InvalidId, match=re.escape(reason)):
        parse_node_id(text)


@pytest.mark.parametrize("text", ["image", "a/b", "op/out/x", ".", "dora"])
def test_data_ids(text: str) -> None:
    assert parse_data_id(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must not be empty"),
        ("/a", "empty path segment"),
        ("a/", "empty path segment"),
        ("a//b", "empty path segment"),
        ("a:b", "contains invalid character ':'"),
    ],
)
def test_refused_data_ids(text: str, reason: str) -> None:
    with pytest.raises(InvalidId, match=reason):
        parse_data_id(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "machine id must not be empty"),
        ("-a", "must not start with '-'"),
        ("a b", "contains invalid character ' ': allowed are letters, digits"),
        (".", "must not consist of dots"),
        ("..", "must not consist of dots"),
        ("x" * 201, "has 201 characters: at most 200 are allowed"),
    ],
)
def test_refused_machine_ids(text: str, reason: str) -> None:
    with pytest.raises(InvalidId, match=re.escape(reason)):
        parse_machine_id(text)


def test_only_the_value_of_a_label_may_start_with_a_dash() -> None:
    assert parse_label("-1", "label value") == "-1"
    with pytest.raises(InvalidId, match="label key '-1' must not start with '-'"):
        parse_label("-1", "label key")


@given(st.text(max_size=12) | st.from_regex(NODE_ID_PATTERN, fullmatch=True))
def test_patterns_of_the_schema_agree_with_the_checks(text: str) -> None:
    def accepts(parse: object) -> bool:
        try:
            parse(text)  # type: ignore[operator]
        except InvalidId:
            return False
        return True

    # JSON Schema's `$` is the end of the text, Python's also stands before a last newline
    for pattern, parse in (
        (NODE_ID_PATTERN, parse_node_id),
        (DATA_ID_PATTERN, parse_data_id),
        (MACHINE_ID_PATTERN, parse_machine_id),
        (LABEL_KEY_PATTERN, lambda value: parse_label(value, "label key")),
        (LABEL_PATTERN, lambda value: parse_label(value, "label value")),
    ):
        matches = re.search(pattern.replace("$", r"\Z"), text) is not None
        assert matches == accepts(parse), (pattern, text)


def test_short_node_id_is_unchanged_in_file_names() -> None:
    assert file_stem("n" * MAX_FILE_STEM) == "n" * MAX_FILE_STEM
    assert log_file_name("a.b") == "log_a.b.jsonl"


def test_long_node_ids_are_shortened_and_unique() -> None:
    one, other = file_stem("n" * 5000 + "1"), file_stem("n" * 5000 + "2")
    assert one != other
    assert one[:100] == other[:100] == "n" * 100
    assert len(one) == len(other) == MAX_FILE_STEM
    assert len(log_file_name("n" * 5000 + "1") + ".100") <= 255
    assert not re.fullmatch(NODE_ID_PATTERN, one), "it could be another node's own name"
