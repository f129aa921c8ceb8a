"""Problems at paths of a document, and their messages for the errors of pydantic; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from dora_config.errors import Problem, Severity
from dora_config.yaml.document import Document, KeyPath
from dora_config.yaml.scalars import written
from dora_config.yaml.suggest import closest_name

_SHOWN_CHARACTERS = 60

Hints = Callable[[str], str | None]
"""Returns a hint for the name of an unknown field, or None."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem at a path of a document."""

    path: KeyPath
    message: str
    hint: str | None = None
    at_key: bool = False
    severity: Severity = "error"

    def problem(self, document: Document) -> Problem:
        """Return the problem with its position in the document."""
        return document.problem(
            self.path, self.message, hint=self.hint, at_key=self.at_key, severity=self.severity
        )


class ErrorTranslation:
    """Translates errors of pydantic to findings."""

    def __init__(
        self, model: type[BaseModel], document: Document, path: KeyPath, hints: Hints | None
    ) -> None:
        self._model = model
        self._document = document
        self._path = path
        self._hints = hints

    def finding(self, detail: Mapping[str, Any]) -> Finding:
        """Return the finding of an error as `validation` reads it."""
        loc: KeyPath = detail["loc"]
        kind: str = detail["type"]
        full = (*self._path, *loc)
        match kind:
            case "extra_forbidden":
                return self._unknown_field(loc, full)
            case "missing":
                message = f"field `{loc[-1]}` is required"
                return self._at((*self._path, *loc[:-1]), message)
            case "value_error":
                message = str(detail["ctx"]["error"])
            case "dora":
                message = detail["ctx"]["sentence"]
            case _:
                message = _expectation(kind, detail)
        return self._at(full, message, is_key=detail["is_key"])

    def _at(self, full: KeyPath, message: str, *, is_key: bool = False) -> Finding:
        where = describe_place(self._document.data, full)
        return Finding(full, f"{where}: {message}" if where else message, at_key=is_key)

    def _unknown_field(self, loc: KeyPath, full: KeyPath) -> Finding:
        name = str(loc[-1])
        model = _model_at(self._model, loc[:-1])
        known = [info.alias or field for field, info in model.model_fields.items()]
        near = closest_name(name, known)
        special = self._hints(name) if self._hints is not None else None
        hint = special or (f"did you mean `{near}`?" if near else None)
        message = f"unknown field `{_shorten(name)}`"
        if hint is None:
            message += f", expected one of {', '.join(sorted(known))}"
        where = describe_place(self._document.data, full[:-1])
        severity: Severity = "warning" if getattr(model, "ignores_unknown", False) else "error"
        text = f"{where}: {message}" if where else message
        return Finding(full, text, hint, at_key=True, severity=severity)


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[BaseModel]:
    """Return the model at `loc` inside `model`."""
    for part in loc:
        if isinstance(part, str):
            for name, info in model.model_fields.items():
                if part == (info.alias or name):
                    inner = _inner_model(info.annotation)
                    model = inner if inner is not None else model
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model in an annotation such as `dict[str, Annotated[Input, ...]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of names to values",
    "model_attributes_type": "a mapping of names to values",
}


def _expectation(kind: str, detail: Mapping[str, Any]) -> str:
    value = detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    found = f", found {show(value)}"
    match kind:
        case "greater_than_equal" if context["ge"] == 0:
            return f"must not be negative{found}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}{found}"
        case "less_than_equal":
            return f"must not exceed {context['le']}{found}"
        case "literal_error":
            return _unknown_choice(str(context["expected"]), value)
        case "string_pattern_mismatch":
            return f"does not match {context['pattern']}{found}"
    if kind in _TYPES:
        return f"expected {_TYPES[kind]}{found}"
    return f"{detail['msg']}{found}"


def _unknown_choice(expected: str, value: Any) -> str:
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ",").split(",")]
    near = closest_name(value, choices) if isinstance(value, str) else None
    suggestion = f'; did you mean "{near}"?' if near else ""
    return f"expected one of {', '.join(choices)}, found {show(value)}{suggestion}"


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
            return _shorten(written(value))
        case _:
            return f'"{_shorten(str(value))}"'


def _shorten(text: str) -> str:
    printable = "".join(
        c if c.isprintable() else ascii(c)[1:-1] for c in text[: _SHOWN_CHARACTERS + 1]
    )
    return printable if len(text) <= _SHOWN_CHARACTERS else printable[:_SHOWN_CHARACTERS] + "..."


def describe_place(data: Any, path: KeyPath) -> str:
    """Return the name of a path for messages: `node "plot": input "image": queue_size`."""
    words: list[str] = []
    fields: list[str] = []
    parts = list(path)
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
            words.append(f'{_NAMED[part]} "{_shorten(str(name))}"')
        elif isinstance(part, int):
            fields.append(f"item {part + 1}")
        else:
            fields.append(_shorten(part))
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
        return f'{noun} "{_shorten(written(item["id"]))}"'
    return f"{noun} {int(index) + 1}"
