"""Validation of plain values against models, with every problem as a `Finding`; pure.

An invalid value is reported and removed, and the rest is validated again, so that one run reports
all problems of a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from dora_config.yaml.document import Document, KeyPath
from dora_config.yaml.findings import ErrorTranslation, Finding, Hints
from dora_config.yaml.scalars import written

_MAX_ROUNDS = 8

Model = TypeVar("Model", bound=BaseModel)


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
) -> Validated[Model]:
    """Validate `data` at `path` of `document`."""
    read, details = _read(model, data)
    if any(_is_scalar_for_text(data, detail) for detail in details):
        data = deepcopy(data)
        for detail in details:
            if _is_scalar_for_text(data, detail):
                _take_text(data, detail, document, path)
        read, details = _read(model, data)
    translate = ErrorTranslation(model, document, path, hints)
    findings = tuple(
        translate.finding(detail)
        for detail in details
        # a required value that is unreadable is not missing
        if detail["type"] != "missing" or (*path, *detail["loc"]) not in document.lost
    )
    usable = deepcopy(data) if details else data
    for _ in range(_MAX_ROUNDS):
        if not details or not _prune(usable, details):
            break
        read, details = _read(model, usable)
    return Validated(read, findings, data)


def _read(model: type[Model], data: Any) -> tuple[Model | None, list[Any]]:
    try:
        return model.model_validate(data), []
    except ValidationError as error:
        return None, [_located(data, detail) for detail in error.errors(include_url=False)]


def _located(data: Any, detail: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the mark "[key]" of pydantic, which may also be a name in `data`, by `is_key`."""
    loc: KeyPath = detail["loc"]
    is_key = loc[-1:] == ("[key]",) and _existing(data, loc) != loc
    return {**detail, "loc": loc[:-1] if is_key else loc, "is_key": is_key}


def _is_scalar_for_text(data: Any, detail: Mapping[str, Any]) -> bool:
    if detail["type"] != "string_type" or detail["is_key"]:
        return False
    return isinstance(_value_at(data, _existing(data, detail["loc"])), bool | int | float)


def _take_text(data: Any, detail: Mapping[str, Any], document: Document, path: KeyPath) -> None:
    """Replace a number or boolean by its text in the document."""
    place = _existing(data, detail["loc"])
    value = _value_at(data, place)
    text = document.scalar_text((*path, *place))
    _value_at(data, place[:-1])[place[-1]] = written(value) if text is None else text


def _prune(data: Any, details: Iterable[Mapping[str, Any]]) -> bool:
    """Remove invalid values, or their parents; return False if nothing remains."""
    targets: set[KeyPath] = {
        _existing(data, detail["loc"][:-1] if detail["type"] == "missing" else detail["loc"])
        for detail in details
    }
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
