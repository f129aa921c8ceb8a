"""Validation of plain values: every problem is reported."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dora_config.dataflow.fields import Text
from dora_config.errors import Problem
from dora_config.yaml.document import Place
from dora_config.yaml.reader import read_document
from dora_config.yaml.validation import validate


class Item(BaseModel):
    """One item."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Text
    size: int = 0


class File(BaseModel):
    """A file of items."""

    model_config = ConfigDict(extra="forbid", strict=True)

    nodes: list[Item]
    name: Text | None = None


def check(text: str) -> tuple[File | None, list[str]]:
    document = read_document(text, "f")
    problems: list[Problem] = []
    read = validate(File, document.data, Place(document), problems)
    return read, [str(problem) for problem in problems]


def test_valid_values_become_a_model() -> None:
    assert check("nodes: [{id: a, size: 3}]") == (File(nodes=[Item(id="a", size=3)]), [])


def test_numbers_become_texts_of_the_file() -> None:
    read, problems = check("nodes: []\nname: 1.10")
    assert read is not None
    assert (read.name, problems) == ("1.10", [])


def test_every_problem_is_reported() -> None:
    read, problems = check("nodes: [{id: a, size: big}, {id: b, sise: 1}, {id: c}]\nnmae: x")
    assert read is None
    assert problems == [
        'f:1:23: node "a": size: expected a whole number, found "big"',
        'f:1:37: node "b": unknown field `sise` (did you mean `size`?)',
        "f:2:1: unknown field `nmae` (did you mean `name`?)",
    ]
