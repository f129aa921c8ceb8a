"""Validation of plain values: messages, recovery and names of paths."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from dora_config.yaml.reader import read_document
from dora_config.yaml.validation import describe_place, show, validate


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


def test_placeholder_replaces_a_missing_value() -> None:
    model, messages = check("name: x", placeholders={("nodes",): []})
    assert model == File(nodes=[], name="x")
    assert messages == ["field `nodes` is required"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        ({}, "a mapping"),
        ([], "a list"),
        (True, "true"),
        (1.5, "1.5"),
        ("a\x1b", '"a\\x1b"'),
        ("x" * 100, '"' + "x" * 60 + '..."'),
    ],
)
def test_values_in_messages(value: Any, text: str) -> None:
    assert show(value) == text


def test_names_of_paths() -> None:
    data = {"nodes": [{"id": "plot", "inputs": {"image": {}}}, {}]}
    place = describe_place(data, ("nodes", 0, "inputs", "image", "queue_size"))
    assert place == 'node "plot": input "image": queue_size'
    assert describe_place(data, ("nodes", 1)) == "node 2"
