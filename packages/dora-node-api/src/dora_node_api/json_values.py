"""Arrow values as JSON with a type beside them, as files of test events and outputs hold them.

Types are written as the peer writes them: `"Int64"`, `"Utf8"`, `{"Struct": [...]}`,
`{"List": {...}}`. A value without a type is what pyarrow makes of the Python value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

_BY_NAME = {
    "Null": "null",
    "Boolean": "bool_",
    "Bool": "bool_",
    "Utf8": "string",
    "String": "string",
    "LargeUtf8": "large_string",
    "Binary": "binary",
    "LargeBinary": "large_binary",
    **{f"Int{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"Float{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "Date32": "date32",
    "Date64": "date64",
}


def array_from_json(value: Any, data_type: Any = None) -> pyarrow.Array:
    """An array from JSON: a list is its elements, anything else its one element.

    Raises ValueError for a type that is unknown or that the value does not fit.
    """
    import pyarrow

    elements = value if isinstance(value, list) else [value]
    if value is None and data_type is None:
        return pyarrow.nulls(0)
    try:
        if data_type is None:
            return pyarrow.array(elements)
        return pyarrow.array(elements, type=type_from_json(data_type))
    except (pyarrow.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(f"{json.dumps(value)[:80]} is no array: {error}") from error


def type_from_json(written: Any) -> pyarrow.DataType:
    """The Arrow type that this JSON names. Raises ValueError."""
    import pyarrow

    match written:
        case str() if written in _BY_NAME:
            made: pyarrow.DataType = getattr(pyarrow, _BY_NAME[written])()
            return made
        case {"Struct": list(fields)}:
            return pyarrow.struct([_field_from_json(field) for field in fields])
        case {"List": dict(field)}:
            return pyarrow.list_(_field_from_json(field))
        case {"LargeList": dict(field)}:
            return pyarrow.large_list(_field_from_json(field))
        case {"FixedSizeList": [dict(field), int(size)]}:
            return pyarrow.list_(_field_from_json(field), size)
        case _:
            raise ValueError(f"unknown data_type {json.dumps(written)[:80]}")


def _field_from_json(field: dict[str, Any]) -> pyarrow.Field:
    import pyarrow

    nullable = field.get("nullable", True)
    return pyarrow.field(field["name"], type_from_json(field["data_type"]), nullable=nullable)


def type_to_json(kind: pyarrow.DataType) -> Any:
    """The JSON of a type; Arrow's own name for one that these files have no word for."""
    from pyarrow import types

    for name, function in _BY_NAME.items():
        if name not in ("Bool", "String") and _is(kind, function):
            return name
    if types.is_struct(kind):
        return {"Struct": [_field_to_json(kind.field(i)) for i in range(kind.num_fields)]}
    if types.is_fixed_size_list(kind):
        return {"FixedSizeList": [_field_to_json(kind.value_field), kind.list_size]}
    if types.is_large_list(kind):
        return {"LargeList": _field_to_json(kind.value_field)}
    if types.is_list(kind):
        return {"List": _field_to_json(kind.value_field)}
    return str(kind)


def _is(kind: pyarrow.DataType, function: str) -> bool:
    import pyarrow

    return bool(kind.equals(getattr(pyarrow, function)()))


def _field_to_json(field: pyarrow.Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "data_type": type_to_json(field.type),
        "nullable": field.nullable,
    }


def array_to_json(array: pyarrow.Array) -> dict[str, Any]:
    """`data` and `data_type` of an array."""
    storage = getattr(array, "storage", array)
    return {"data": storage.to_pylist(), "data_type": type_to_json(storage.type)}


def dumps(value: Any) -> str:
    """One line of JSON. Bytes become lists of numbers, dates their ISO text, NaN stays NaN."""
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return list(bytes(value))
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
