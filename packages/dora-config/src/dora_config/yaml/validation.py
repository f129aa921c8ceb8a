"""Validation of plain values against models, with every problem as a `Finding`; pure.

An invalid value is reported and removed, and the rest is validated again, so that one run reports
all problems of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from dora_config.errors import Problem, Severity
from dora_config.yaml.document import Document, KeyPath
from dora_config.yaml.scalars import written
from dora_config.yaml.suggest import closest_name

_MAX_ROUNDS = 8
_SHOWN_CHARACTERS = 60

Model = TypeVar("Model", bound=BaseModel)
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


@dataclass(frozen=True, slots=True)
class Validated(Generic[Model]):
    """A model, or None if no valid part remained.

    `data` are the values, with numbers and booleans as texts where the model has texts.
    """

    model: Model | None
    findings: tuple[Finding, ...]
    data: Any


def validate(
    model: type[Model],
    data: Any,
    document: Document,
    path: KeyPath = (),
    *,
    hints: Hints | None = None,
    placeholders: Mapping[KeyPath, Any] | None = None,
) -> Validated[Model]:
    """Validate `data` at `path` of `document`.

    `placeholders` replace required values that are missing or invalid, so that the rest is still
    read into a model.
    """
    read, details = _read(model, data)
    if any(_is_scalar_for_text(data, detail) for detail in details):
        data = deepcopy(data)
        for detail in details:
            if _is_scalar_for_text(data, detail):
                _take_text(data, detail, document, path)
        read, details = _read(model, data)
    translate = _Translation(model, document, path, hints)
    findings = tuple(
        translate.finding(detail)
        for detail in details
        # a required value that is unreadable is not missing
        if detail["type"] != "missing" or (*path, *detail["loc"]) not in document.lost
    )
    usable = deepcopy(data) if details else data
    for _ in range(_MAX_ROUNDS):
        if not details or not _prune(usable, details, placeholders or {}):
            break
        read, details = _read(model, usable)
    return Validated(read, findings, data)


def _read(model: type[Model], data: Any) -> tuple[Model | None, list[Any]]:
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False))


def _is_scalar_for_text(data: Any, detail: Mapping[str, Any]) -> bool:
    if detail["type"] != "string_type" or "[key]" in detail["loc"]:
        return False
    return isinstance(_value_at(data, _existing(data, detail["loc"])), bool | int | float)


def _take_text(data: Any, detail: Mapping[str, Any], document: Document, path: KeyPath) -> None:
    """Replace a number or boolean by its text in the document."""
    place = _existing(data, detail["loc"])
    value = _value_at(data, place)
    text = document.scalar_text((*path, *place))
    _value_at(data, place[:-1])[place[-1]] = written(value) if text is None else text


def _prune(
    data: Any, details: Iterable[Mapping[str, Any]], placeholders: Mapping[KeyPath, Any]
) -> bool:
    """Remove or replace invalid values, or their parents; return False if nothing remains."""
    replaced: list[KeyPath] = []
    targets: set[KeyPath] = set()
    for detail in details:
        loc: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
        if loc in placeholders:
            replaced.append(loc)
        else:
            targets.add(_existing(data, loc[:-1] if detail["type"] == "missing" else loc))
    if () in targets:
        return False
    outermost = [
        target
        for target in targets
        if not any(target[:length] in targets for length in range(1, len(target)))
    ]
    # from the end, so that the indices of lists stay valid
    for target in sorted(
        outermost, key=lambda parts: [str(p).zfill(9) for p in parts], reverse=True
    ):
        del _value_at(data, target[:-1])[target[-1]]
    for loc in replaced:
        _value_at(data, loc[:-1])[loc[-1]] = deepcopy(placeholders[loc])
    return True


def _existing(data: Any, place: KeyPath) -> KeyPath:
    """Return the longest prefix of `place` that exists in `data`."""
    for depth, part in enumerate(place):
        known = (
            data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        )
        if part not in known:
            return place[:depth]
        data = data[part]
    return place


def _value_at(data: Any, path: KeyPath) -> Any:
    for part in path:
        data = data[part]
    return data


class _Translation:
    """Translates errors of pydantic to findings."""

    def __init__(
        self, model: type[BaseModel], document: Document, path: KeyPath, hints: Hints | None
    ) -> None:
        self._model = model
        self._document = document
        self._path = path
        self._hints = hints

    def finding(self, detail: Mapping[str, Any]) -> Finding:
        is_key = "[key]" in detail["loc"]
        loc: KeyPath = tuple(part for part in detail["loc"] if part != "[key]")
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
        return self._at(full, message, is_key=is_key)

    def _at(
        self, full: KeyPath, message: str, *, hint: str | None = None, is_key: bool = False
    ) -> Finding:
        where = describe_place(self._document.data, full)
        return Finding(full, f"{where}: {message}" if where else message, hint, at_key=is_key)

    def _unknown_field(self, loc: KeyPath, full: KeyPath) -> Finding:
        name = str(loc[-1])
        known = _fields_at(self._model, loc[:-1])
        near = closest_name(name, known)
        special = self._hints(name) if self._hints is not None else None
        hint = special or (f"did you mean `{near}`?" if near else None)
        message = f"unknown field `{_shorten(name)}`"
        if hint is None:
            message += f", expected one of {', '.join(sorted(known))}"
        where = describe_place(self._document.data, full[:-1])
        return Finding(full, f"{where}: {message}" if where else message, hint, at_key=True)


def _fields_at(model: type[BaseModel], loc: KeyPath) -> list[str]:
    """Return the names in YAML of the fields of the model at `loc` inside `model`."""
    for part in loc:
        if isinstance(part, str):
            for name, info in model.model_fields.items():
                if part == (info.alias or name):
                    inner = _inner_model(info.annotation)
                    model = inner if inner is not None else model
    return [info.alias or name for name, info in model.model_fields.items()]


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
