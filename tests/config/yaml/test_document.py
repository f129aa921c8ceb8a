"""Positions of keys and values."""

from __future__ import annotations

import pytest

from dora_config.yaml import reader
from dora_config.yaml.document import Span
from dora_config.yaml.reader import read_document


@pytest.fixture(params=["fast", "pure"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with both parsers of PyYAML: of libyaml, and in Python."""
    if request.param == "pure":
        monkeypatch.setattr(reader, "_TreeComposer", reader._PythonComposer)


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
def test_positions_of_many_keys_are_fast() -> None:
    many = 50_000
    document = read_document("\n".join(f"k{n}: x" for n in range(many)), "f")
    assert all(document.span((f"k{n}",)).line == n + 1 for n in range(many))


def test_key_and_value_have_their_own_spans() -> None:
    document = read_document(TEXT, "f")
    assert document.span(("nodes", 0, "id"), at_key=True) == Span(2, 5, 2, 7)
