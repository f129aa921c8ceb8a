"""Values and paths in the messages about a document."""

from __future__ import annotations

from typing import Any

import pytest

from dora_config.yaml.document import Document, Place
from dora_config.yaml.wording import describe_place, show


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
    root = Place(Document("f", "", data))
    place = root.at("nodes", 0, "inputs", "image", "queue_size")
    assert describe_place(place) == 'node "plot": input "image": queue_size'
    assert describe_place(root.at("nodes", 1)) == "node 2"
