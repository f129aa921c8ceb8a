"""Examples of pydantic messages that fill every field, for golden files of wire formats."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dora_config.dataflow.resolved import DATAFLOW_FORMAT, ResolvedDataflow, ResolvedNode

Overrides = Mapping[str, Any]
"""Values of fields that have rules of their own, by `Model.field` or by the pattern of a text."""

_SCALARS: Mapping[Any, Any] = {
    str: "text",
    bytes: b"text",
    int: 7,
    float: 1.5,
    bool: True,
    Any: {"key": [1, None]},
}


DATAFLOW = ResolvedDataflow(nodes=(ResolvedNode(id="text"),))
ONE_DATAFLOW: Overrides = {"ResolvedDataflow": DATAFLOW, "ResolvedNode": DATAFLOW.nodes[0]}
"""In formats that contain dataflows, which have a version and golden file of their own."""
ALL_DATAFLOWS: Overrides = {"ResolvedNode.format": DATAFLOW_FORMAT}


def without_defaults(line: bytes) -> bytes:
    """Return a message without the fields of `DATAFLOW` that have default values."""
    for model in (DATAFLOW, DATAFLOW.nodes[0]):
        short = json.dumps(model.model_dump(mode="json", exclude_defaults=True))
        line = line.replace(model.model_dump_json().encode(), short.encode())
        line = line.replace(json.dumps(model.model_dump(mode="json")).encode(), short.encode())
    return line


def examples(annotation: Any, overrides: Overrides) -> list[Any]:
    """Return values of a type that together use every field, literal and union member once."""
    if (name := getattr(annotation, "__name__", "")) in overrides:
        return [overrides[name]]
    if annotation in _SCALARS:
        return [_SCALARS[annotation]]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotated(arguments, overrides)
    if origin is Literal:
        return list(arguments)
    if origin in (Union, types.UnionType):
        members = [one for one in arguments if one is not type(None)]
        return [value for member in members for value in examples(member, overrides)]
    if origin is tuple:
        inner = [one for one in arguments if one is not Ellipsis]
        if len(inner) == len(arguments):
            return [tuple(examples(one, overrides)[0] for one in inner)]
        return [(value,) for value in examples(inner[0], overrides)]
    if origin is dict:
        key = examples(arguments[0], overrides)[0]
        return [{key: value} for value in examples(arguments[1], overrides)]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(_models(annotation, overrides))
    raise TypeError(f"no example for {annotation!r}")


def _annotated(arguments: tuple[Any, ...], overrides: Overrides) -> list[Any]:
    inner, *metadata = arguments
    for one in metadata:
        flat = one.metadata if isinstance(one, FieldInfo) else [one]
        for rule in flat:
            pattern = str(getattr(rule, "pattern", ""))
            if pattern in overrides:
                return [overrides[pattern]]
            if inner is int and isinstance(rule, Ge):
                return [rule.ge]
            if inner is float and isinstance(rule, Gt):
                return [_SCALARS[float]]
    return examples(inner, overrides)


def _models(model: type[BaseModel], overrides: Overrides) -> Iterator[BaseModel]:
    """As many examples as the field with the most alternatives has; the others repeat theirs."""
    choices: dict[str, list[Any]] = {}
    for name, info in model.model_fields.items():
        override = f"{model.__name__}.{name}"
        if override in overrides:
            choices[name] = [overrides[override]]
        else:
            annotation: Any = info.annotation
            if info.metadata:
                annotation = Annotated[(annotation, *info.metadata)]
            choices[name] = examples(annotation, overrides)
    for index in range(max((len(values) for values in choices.values()), default=1)):
        yield model(**{name: values[index % len(values)] for name, values in choices.items()})
