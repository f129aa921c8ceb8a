"""Validation of plain values against models, with a problem for each error of pydantic; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dora_config.errors import Problem
from dora_config.yaml.document import KeyPath, Place
from dora_config.yaml.suggest import closest, closest_name
from dora_config.yaml.wording import describe_place, shorten, show

Model = TypeVar("Model", bound=BaseModel)
Hints = Callable[[str], str | None]
"""Returns a hint for the name of an unknown field, or for `required NAME`; None without one."""


def validate(
    model: type[Model], data: Any, place: Place, problems: list[Problem], hints: Hints | None = None
) -> Model | None:
    """Return the model of `data`; None if it is not valid, with the reasons in `problems`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems.extend(_problem(model, data, place, detail, hints) for detail in details)
        return None


def _problem(
    model: type[BaseModel], data: Any, place: Place, detail: Mapping[str, Any], hints: Hints | None
) -> Problem:
    loc: KeyPath = detail["loc"]
    is_key = loc[-1:] == ("[key]",) and not _exists(data, loc)
    at, hint = place.at(*(loc[:-1] if is_key else loc)), None
    match detail["type"]:
        case "extra_forbidden":
            known = _model_at(model, loc[:-1])
            return unknown_field(known, place.at(*loc[:-1]), str(loc[-1]), hints)
        case "missing":
            at, message = place.at(*loc[:-1]), f"field `{loc[-1]}` is required"
            hint = hints and hints(f"required {loc[-1]}")
        case "value_error":
            message = str(detail["ctx"]["error"])
        case "dora":
            message = detail["ctx"]["sentence"]
        case kind:
            message = _expectation(kind, detail)
    where = describe_place(at)
    return at.problem(f"{where}: {message}" if where else message, hint, at_key=is_key)


def _exists(data: Any, loc: KeyPath) -> bool:
    """Return whether `loc` is a path of `data`, where "[key]" may be a name."""
    try:
        for part in loc:
            data = data[part]
    except (LookupError, TypeError):
        return False
    return True


def unknown_field(
    model: type[BaseModel], place: Place, name: str, hints: Hints | None = None
) -> Problem:
    """Return the problem of a field that the model of the values at `place` does not have."""
    known = [info.alias or field for field, info in model.model_fields.items()]
    near = closest_name(name, known)
    hint = (hints(name) if hints is not None else None) or (near and f"did you mean `{near}`?")
    message = f"unknown field `{shorten(name)}`"
    if hint is None:
        message += f", expected one of {', '.join(sorted(known))}"
    where = describe_place(place)
    return place.at(name).problem(f"{where}: {message}" if where else message, hint, at_key=True)


def _model_at(model: type[BaseModel], loc: KeyPath) -> type[BaseModel]:
    """Return the model at `loc` inside `model`."""
    for part in loc:
        for name, info in model.model_fields.items():
            if part in (name, info.alias, *getattr(info.validation_alias, "choices", ())):
                model = next(_models(info.annotation), model)
                break
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation such as `dict[str, Annotated[Input, ...]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
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
    suggestion = closest(value, choices) if isinstance(value, str) else ""
    return f"expected one of {', '.join(choices)}, found {show(value)}{suggestion}"
