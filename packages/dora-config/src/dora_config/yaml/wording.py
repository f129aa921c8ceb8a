"""Values and places in messages about a document; pure."""

from __future__ import annotations

from typing import Any

from dora_config.terminal import clean_text
from dora_config.yaml.document import Place
from dora_config.yaml.scalars import written

_SHOWN_CHARACTERS = 60
"""Characters of an offending value that an error shows."""


def show(value: Any) -> str:
    """Format a value for a message."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case bool() | int() | float():
            return shorten(written(value))
        case _:
            return f'"{shorten(str(value))}"'


def shorten(text: str) -> str:
    """Return a part of a file for a message."""
    return clean_text(text, limit=_SHOWN_CHARACTERS)


def describe_place(place: Place) -> str:
    """Return the name of a place for messages: `node "plot": input "image": queue_size`."""
    data = place.document.data
    words: list[str] = []
    fields: list[str] = []
    parts = list(place.path)
    while parts:
        part = parts.pop(0)
        inner = _step(data, part)
        if part in _NUMBERED and parts and isinstance(parts[0], int):
            index = parts.pop(0)
            inner = _step(inner, index)
            words.append(_numbered(_NUMBERED[part], inner, index))
        elif part in _NAMED and parts:
            name = parts.pop(0)
            inner = _step(inner, name)
            words.append(f'{_NAMED[part]} "{shorten(str(name))}"')
        elif isinstance(part, int):
            fields.append(f"item {part + 1}")
        else:
            fields.append(shorten(part))
        data = inner
    return ": ".join([*words, *([" ".join(fields)] if fields else [])])


_NUMBERED: dict[str | int, str] = {
    "nodes": "node",
    "operators": "operator",
    "machines": "machine",
    "type_rules": "type rule",
}
_NAMED: dict[str | int, str] = {"inputs": "input", "env": "environment variable"}


def _step(data: Any, part: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def _numbered(noun: str, item: Any, index: int | str) -> str:
    if isinstance(item, dict) and isinstance(item.get("id"), str | int | float):
        return f'{noun} "{shorten(written(item["id"]))}"'
    return f"{noun} {int(index) + 1}"
