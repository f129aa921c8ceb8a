"""Validation of plain values: every problem is reported, the rest is read."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from dora_config.yaml.reader import read_document
from dora_config.yaml.validation import validate


class Item(BaseModel):
    """One item."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    size: int = 0


class File(BaseModel):
    """A file of items."""

    model_config = ConfigDict(extra="forbid", strict=True)

    nodes: list[Item]
    name: str | None = None


def check(text: str, **options: Any) -> tuple[File | None, list[str]]:
    document = read_document(text, "f")
    checked = validate(File, document.data, document, **options)
    return checked.model, [finding.message for finding in checked.findings]


def test_valid_values_become_a_model() -> None:
    model, messages = check("nodes: [{id: a, size: 3}]")
    assert model == File(nodes=[Item(id="a", size=3)])
    assert messages == []


def test_numbers_become_texts_of_the_file() -> None:
    model, messages = check("nodes: []\nname: 1.10")
    assert model is not None
    assert model.name == "1.10"
    assert messages == []


def test_every_problem_is_reported_and_the_rest_is_read() -> None:
    model, messages = check("nodes: [{id: a, size: big}, {id: b, sise: 1}, {id: c}]\nnmae: x")
    assert model == File(nodes=[Item(id="a"), Item(id="b"), Item(id="c")])
    assert messages == [
        'node "a": size: expected a whole number, found "big"',
        'node "b": unknown field `sise`',
        "unknown field `nmae`",
    ]
