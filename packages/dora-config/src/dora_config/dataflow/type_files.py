"""User-defined types in the folder `types/` beside a dataflow; pure.

The path of a file is the prefix of its types: `types/lab/sensors/v1.yml` defines
`lab/sensors/v1/...`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BeforeValidator

from dora_config.dataflow.fields import FreeTextField, TextField, Written
from dora_config.dataflow.types import TypeDefinition
from dora_config.yaml.document import Document
from dora_config.yaml.findings import Finding
from dora_config.yaml.scalars import written
from dora_config.yaml.validation import validate


def _parameter_names(value: Any) -> list[Any]:
    """Accept names as a list, as keys of a mapping, or as `name` of mappings in a list."""
    if isinstance(value, dict):
        return list(value)
    if not isinstance(value, list):
        raise ValueError("expected a list of parameter names")
    return [_name(one) if isinstance(one, dict) else one for one in value]


def _name(parameter: dict[str, Any]) -> Any:
    name = parameter.get("name")
    return written(name) if isinstance(name, bool | int | float) else name


ParameterNames = Annotated[list[str], BeforeValidator(_parameter_names)]


class FieldOfType(Written):
    """One field of a Struct."""

    name: TextField
    type: TextField
    description: FreeTextField | None = None


class TypeOfFile(Written):
    """One type; `arrow` is `Struct`, or the Arrow type such as `Float32`."""

    arrow: TextField
    description: FreeTextField | None = None
    fields: list[FieldOfType] | None = None
    parameters: ParameterNames | None = None
    params: ParameterNames | None = None


class TypeFile(Written):
    """A file of types."""

    types: dict[TextField, TypeOfFile]


def read_type_file(
    document: Document, place: PurePosixPath
) -> tuple[list[TypeDefinition], list[Finding]]:
    """Read the types of a file at `place` below `types/`."""
    prefix = place.with_suffix("").as_posix()
    checked = validate(TypeFile, document.data, document)
    if prefix.partition("/")[0] == "std":
        message = "names std/... are reserved for dora's own types: move the file to another folder"
        return [], [Finding((), message), *checked.findings]
    types = checked.model.types if checked.model is not None else {}
    return list(_definitions(prefix, types)), list(checked.findings)


def _definitions(prefix: str, types: dict[str, TypeOfFile]) -> Iterator[TypeDefinition]:
    for name, one in types.items():
        names = one.parameters if one.parameters is not None else one.params
        yield TypeDefinition(
            name=f"{prefix}/{name}",
            arrow=one.arrow,
            fields={part.name: part.type for part in one.fields or ()},
            parameters=None if names is None else frozenset(names),
        )
