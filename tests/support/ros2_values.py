"""Random values of ROS 2 types, as dictionaries."""

from __future__ import annotations

import random
import struct
from typing import Any

from dora_ros2.definitions.description import (
    BOUNDED_WSTRING,
    NESTED,
    NUMBERS,
    PLACEHOLDER,
    WSTRING,
    FieldType,
    TypeDescription,
)

LETTERS = "abc XYZ 0/_é漢\U0001f600"


def random_value(description: TypeDescription, source: random.Random) -> dict[str, Any]:
    return _structure(description, description.name, source)


def _structure(description: TypeDescription, name: str, source: random.Random) -> dict[str, Any]:
    return {
        field.name: _field(description, field.type, source)
        for field in description.structures[name].fields
        if field.name != PLACEHOLDER
    }


def _field(description: TypeDescription, kind: FieldType, source: random.Random) -> Any:
    if kind.kind == "single":
        return _element(description, kind, source)
    count = kind.capacity
    if kind.kind != "array":
        most = min(kind.capacity or 5, 5)
        count = source.choice([0, 1, source.randint(0, most)])
        if kind.kind == "sequence" and kind.element in NUMBERS and source.random() < 0.1:
            count = source.randint(500, 600)  # shared, not read
    return [_element(description, kind, source) for _ in range(count)]


def _element(description: TypeDescription, kind: FieldType, source: random.Random) -> Any:
    if kind.element == NESTED:
        return _structure(description, kind.nested, source)
    code = NUMBERS.get(kind.element)
    if code is None:
        wide = kind.element in (WSTRING, BOUNDED_WSTRING)
        # a bound counts bytes, or units of UTF-16
        most = min(kind.string_capacity or 40, 40) // (2 if wide else 4)
        return "".join(source.choices(LETTERS, k=source.randint(0, most)))
    if code == "?":
        return source.random() < 0.5
    if code in "fd":
        value = source.uniform(-1e6, 1e6)
        return struct.unpack("f", struct.pack("f", value))[0] if code == "f" else value
    return int(struct.unpack(f"={code}", source.randbytes(struct.calcsize(f"={code}")))[0])
