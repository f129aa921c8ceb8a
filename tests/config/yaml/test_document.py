"""YAML with positions: what scalars mean, what is refused, where things stand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dora_config.yaml import reader
from dora_config.yaml.document import Span
from dora_config.yaml.reader import read_document
from dora_config.yaml.scalars import written
from dora_config.yaml.writer import dump_yaml


@pytest.fixture(params=["fast", "pure"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: libyaml's, and the one in Python where that is missing."""
    if request.param == "pure":
        monkeypatch.setattr(reader, "_TreeComposer", reader._PythonComposer)


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read_document(text, "f").problems]


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
def test_numbers_remember_how_they_were_written(text: str) -> None:
    assert written(read_document(f"key: {text}", "f").data["key"]) == text


def test_booleans_are_written_in_lower_case() -> None:
    assert written(read_document("key: TRUE", "f").data["key"]) == "true"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", 'f:3:1: duplicate key "a", first on line 1'),
        ("a: {b: 1, b: 2}", 'f:1:11: duplicate key "b", first on line 1'),
        ("a: [", "invalid YAML"),
        ("\t- a", "the line is indented with a tab"),
        ("a:\n\tb: 1", "the line is indented with a tab"),
        ("a: *nobody", "f:1:4: unknown alias *nobody"),
        ("&a [*a]", "an alias must not lie inside the value it stands for"),
        ("a: &a\n  b: *a", "an alias must not lie inside the value it stands for"),
        ("a: 1\n---\nb: 2", "f:2:1: the file contains more than one YAML document"),
        ("? [a]\n: b", "a key must be a plain word"),
        ("a: !thing 1", "f:1:4: unknown YAML tag '!thing'"),
        ("a: !thing [1]", "unknown YAML tag '!thing'"),
        ("a: !!int x", "f:1:4: 'x' is not a !!int"),
        ("a: !!python/object:os.system x", "unknown YAML tag"),
        ("<<: 5", "`<<` takes a mapping or a list of mappings"),
        ("a: \x00", "invalid YAML"),
        ("a: \ud800", "f:1:"),
        ("- " * 100, "values are nested deeper than 60 levels"),
        ("[" * 100, "values are nested deeper than 60 levels"),
        ("a: 'x\nb: 1", "invalid YAML"),
    ],
)
def test_what_is_wrong_is_a_problem_with_a_place(text: str, says: str) -> None:
    found = problems(text)
    assert any(says in problem for problem in found), found


def test_aliases_cannot_blow_a_small_file_up() -> None:
    lines = ["a0: &a0 [1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "expands to more than" in problems("\n".join(lines))[0]


def test_an_alias_may_be_used_again() -> None:
    assert read_document("a: &x {k: 1}\nb: *x", "f").data == {"a": {"k": 1}, "b": {"k": 1}}


def test_merge_keys_fill_in_what_is_not_there() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: &m {z: 3, x: 9}\nuse:\n  <<: [*b, *m]\n  y: 5\n"
    document = read_document(text, "f")
    assert document.data["use"] == {"y": 5, "x": 1, "z": 3}
    assert document.span(("use", "x")).line == 1
    assert document.span(("use", "z")).line == 2


def test_a_quoted_merge_key_is_a_key() -> None:
    assert read_document("'<<': 5", "f").data == {"<<": 5}


def test_a_byte_order_mark_is_left_out() -> None:
    assert read_document("\ufeffa: 1", "f").data == {"a": 1}


TEXT = """\
nodes:
  - id: a
    inputs: {x: b/c, y: {source: d/e}}
    env:
      K: |
        long
    empty:
"""


@pytest.mark.parametrize(
    ("path", "at_key", "line", "column"),
    [
        (("nodes",), False, 1, 1),
        (("nodes", 0), False, 2, 5),
        (("nodes", 0, "id"), False, 2, 9),
        (("nodes", 0, "id"), True, 2, 5),
        (("nodes", 0, "inputs", "x"), False, 3, 17),
        (("nodes", 0, "inputs", "x"), True, 3, 14),
        (("nodes", 0, "inputs", "x", "source"), False, 3, 17),
        (("nodes", 0, "inputs", "y", "source"), False, 3, 34),
        (("nodes", 0, "inputs", "nothing"), False, 3, 5),
        (("nodes", 5), False, 1, 1),
        (("nodes", 0, "env", "K"), False, 5, 10),
        (("nodes", 0, "empty"), False, 7, 5),
        ((), False, 1, 1),
    ],
)
def test_positions(path: tuple[str | int, ...], at_key: bool, line: int, column: int) -> None:
    span = read_document(TEXT, "f").span(path, at_key=at_key)
    assert (span.line, span.column) == (line, column)


@pytest.mark.timeout(30)
def test_each_of_many_keys_has_its_position_at_once() -> None:
    many = 50_000
    document = read_document("\n".join(f"k{n}: x" for n in range(many)), "f")
    assert all(document.span((f"k{n}",)).line == n + 1 for n in range(many))


def test_the_extent_of_a_value() -> None:
    document = read_document(TEXT, "f")
    assert document.span(("nodes", 0, "id"), at_key=True) == Span(2, 5, 2, 7)
    assert document.lines_of(("nodes", 0, "inputs")) == Span(3, 13, 3, 39)


def test_old_names_are_found_by_the_new_ones() -> None:
    document = read_document("a: 1\n_unstable_deploy:\n  machine: x\n", "f")
    assert document.span(("deploy", "machine")).line == 3


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=15),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=10,
)


@given(plain_values)
@settings(max_examples=400)
def test_what_is_dumped_reads_back_equal(value: Any) -> None:
    document = read_document(dump_yaml({"value": value}), "f")
    assert document.problems == []
    assert document.data == {"value": value}


@given(st.floats(allow_nan=False))
def test_floats_read_back_equal(value: float) -> None:
    assert read_document(dump_yaml([value]), "f").data == [value]


@given(st.text(max_size=60))
def test_any_text_is_read_or_has_problems(text: str) -> None:
    document = read_document(text, "f")
    for problem in document.problems:
        assert problem.line >= 1
        assert problem.column >= 1
