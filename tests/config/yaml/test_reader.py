"""Reading of YAML: problems, aliases, merge keys."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from dora_config.yaml import reader
from dora_config.yaml.reader import read_document


@pytest.fixture(params=["fast", "pure"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with both parsers of PyYAML: of libyaml, and in Python."""
    if request.param == "pure":
        monkeypatch.setattr(reader, "_TreeComposer", reader._PythonComposer)


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read_document(text, "f").problems]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", 'f:3:1: duplicate key "a", first on line 1'),
        ("a: {b: 1, b: 2}", 'f:1:11: duplicate key "b", first on line 1'),
        ("a: [", "invalid YAML"),
        ("\t- a", "the line is indented with a tab"),
        ("a:\n\tb: 1", "the line is indented with a tab"),
        ("a: *missing", "f:1:4: unknown alias *missing"),
        ("&a [*a]", "an alias must not lie inside the value it stands for"),
        ("a: &a\n  b: *a", "an alias must not lie inside the value it stands for"),
        ("a: 1\n---\nb: 2", "f:2:1: the file contains more than one YAML document"),
        ("? [a]\n: b", "a key must be a plain word"),
        ("a: !thing 1", "f:1:4: unknown YAML tag '!thing'"),
        ("a: !thing [1]", "unknown YAML tag '!thing'"),
        ("a: !!int x", "f:1:4: 'x' is not a !!int"),
        ("a: !!python/object:os.system x", "unknown YAML tag"),
        ("<<: 5", "`<<` takes a mapping or a list of mappings"),
        ("# ä\nä: \x00", "f:2:4: invalid YAML"),
        ("a: \ud800", "f:1:"),
        (r'a: "\ud800"', "invalid Unicode character escape code"),
        (r'a: "\U00110000"', "invalid Unicode character escape code"),
        ("- " * 100, "values are nested deeper than 60 levels"),
        ("[" * 100, "values are nested deeper than 60 levels"),
        ("a: 'x\nb: 1", "invalid YAML"),
    ],
)
def test_problems_have_positions(text: str, message: str) -> None:
    found = problems(text)
    assert any(message in problem for problem in found), found


def test_expansion_of_aliases_is_limited() -> None:
    lines = ["a0: &a0 [1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "expands to more than" in problems("\n".join(lines))[0]


def test_alias_may_be_repeated() -> None:
    assert read_document("a: &x {k: 1}\nb: *x", "f").data == {"a": {"k": 1}, "b": {"k": 1}}


def test_merge_keys_add_missing_values() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {z: 3, x: 9}\nuse:\n  <<: [*b, *m]\n  y: 5\n"
    document = read_document(text, "f")
    assert document.data["use"] == {"y": 5, "x": 1, "z": 3}
    assert document.span(("use", "x")).line == 1
    assert document.span(("use", "z")).line == 2


def test_quoted_merge_key_is_a_plain_key() -> None:
    assert read_document("'<<': 5", "f").data == {"<<": 5}


def test_byte_order_mark_is_ignored() -> None:
    assert read_document("\ufeffa: 1", "f").data == {"a": 1}


@given(st.text(max_size=60))
def test_any_text_is_read_or_has_problems(text: str) -> None:
    document = read_document(text, "f")
    for problem in document.problems:
        assert problem.line >= 1
        assert problem.column >= 1


def test_anchor_may_be_defined_again() -> None:
    document = read_document("a: &x 1\nb: *x\nc: &x 2\nd: *x", "f")
    assert document.data == {"a": 1, "b": 1, "c": 2, "d": 2}
    assert document.problems == []
