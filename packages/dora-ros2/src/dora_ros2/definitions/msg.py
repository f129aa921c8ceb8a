"""Parser of `.msg`, `.srv` and `.action` files (pure)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dora_ros2.definitions.description import (
    BOUNDED_STRING,
    IDS,
    NESTED,
    PARTS,
    STRING,
    WSTRING,
    Field,
    FieldType,
    Structure,
    structure,
    value_of,
    with_implicit,
)
from dora_ros2.errors import DefinitionError

_TYPE = re.compile(
    r"(?P<name>[A-Za-z]\w*(?:/[A-Za-z]\w*){0,2})(?:<=(?P<bound>\d+))?"
    r"(?:\[(?P<size>(?:<=)?\d+|)\])?"
)
_CONSTANT = re.compile(r"[A-Z]\w*\s*=")
_UNCOMMENTED = re.compile(r"""(?:[^#"']|"(?:\\.|[^"\\])*(?:"|$)|'(?:\\.|[^'\\])*(?:'|$))*""")
"""Part of a line before a ``#`` outside of quotes; quotes within a comment are ignored."""
SEPARATOR = re.compile(r"^---.*$\n?", re.MULTILINE)


def parse(name: str, text: str, *, file: str = "") -> list[Structure]:
    """Return the structures of the definition ``text`` of ``name``, itself first."""
    kind = name.split("/")[1]
    names = [f"{name}{suffix}" for suffix in PARTS[kind]]
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    sections = SEPARATOR.split(text) if kind != "msg" else [text]
    if len(sections) != len(names):
        raise DefinitionError(
            f"a definition of this kind has {len(names)} parts, not {len(sections)}",
            remedy='put a line "---" between two parts',
            file=file,
        )
    line = 1
    found = []
    for section_name, section in zip(names, sections, strict=True):
        found.append(_section(section_name, section, file, line))
        line += section.count("\n") + 1
    return with_implicit(name, found)


def _section(name: str, text: str, file: str, first: int) -> Structure:
    fields: dict[str, Field] = {}
    for number, line in enumerate(text.split("\n"), first):
        words = _UNCOMMENTED.findall(line)[0].split(None, 1)
        if not words:
            continue
        try:
            found = _field(words, name.split("/")[0])
            if found is not None and found.name in fields:
                raise DefinitionError(f'the field "{found.name}" occurs twice')
        except DefinitionError as error:
            raise DefinitionError(
                error.problem, remedy=error.remedy, file=file, line=number
            ) from None
        if found is not None:
            fields[found.name] = found
    return structure(name, fields.values(), text)


def _field(words: Sequence[str], package: str) -> Field | None:
    """Return the field of a line; None for a constant."""
    kind = _field_type(words[0], package)
    rest = words[1] if len(words) == 2 else ""
    if _CONSTANT.match(rest):
        return None
    name, default = (*rest.split(None, 1), "", "")[:2]
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        problem = f'"{name}" is not the name of a field' if name else "the line has no field name"
        raise DefinitionError(problem, remedy="write: type name [default]")
    return Field(name, kind, value_of(kind, default.strip()) if default else None)


def _field_type(text: str, package: str) -> FieldType:
    match = _TYPE.fullmatch(text)
    if match is None:
        raise DefinitionError(f'"{text}" is not a type')
    name, bound, size = match["name"], match["bound"], match["size"]
    if name in IDS:
        kind = FieldType(IDS[name])
        if bound is not None:
            if kind.type_id not in (STRING, WSTRING):
                raise DefinitionError(f'"{name}" cannot be bounded; only strings can')
            kind = FieldType(kind.type_id + BOUNDED_STRING - STRING, string_capacity=int(bound))
    elif bound is not None or name in ("time", "duration"):
        remedy = f"write builtin_interfaces/{name.title()}" if bound is None else ""
        raise DefinitionError(f'"{text}" is not a type of ROS 2', remedy=remedy)
    else:
        kind = FieldType(NESTED, nested=_nested_name(name, package))
    if size is None:
        return kind
    if size == "":
        return kind.several("sequence", 0)
    capacity = int(size.removeprefix("<="))
    if capacity == 0:
        raise DefinitionError(f'"{text}" has no element')
    return kind.several("bounded" if size.startswith("<=") else "array", capacity)


def _nested_name(name: str, package: str) -> str:
    parts = name.split("/")
    if len(parts) == 3 and parts[1] != "msg":
        raise DefinitionError(f'"{name}" is not a message; a field cannot have this type')
    return f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}"
