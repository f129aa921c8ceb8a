"""Arrow values as JSON with their type, in files of test events and outputs.

Types are named as in dora-rs: `"Int64"`, `"Utf8"`, `{"Struct": [...]}`, `{"List": {...}}`,
`{"Timestamp": ["Nanosecond", null]}`. Without a type, pyarrow infers one from the Python value.
Dates, timestamps and decimals are text, other times numbers, bytes hexadecimal.
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
_UNITS = {"Second": "s", "Millisecond": "ms", "Microsecond": "us", "Nanosecond": "ns"}
_UNIT_NAMES = {unit: name for name, unit in _UNITS.items()}


def array_from_json(value: Any, data_type: Any = None) -> pyarrow.Array:
    """Return an array from JSON: a list is its elements, anything else its one element.

    Raises ValueError for an unknown type or a value of another type.
    """
    import pyarrow

    elements = value if isinstance(value, list) else [value]
    if value is None and data_type is None:
        return pyarrow.nulls(0)
    try:
        if data_type is None:
            return pyarrow.array(elements)
        kind = type_from_json(data_type)
        written = _written(kind)
        array = pyarrow.array([_restored(element, written) for element in elements], written)
        return array if written.equals(kind) else array.cast(kind)
    except (pyarrow.ArrowException, TypeError, OverflowError) as error:
        raise ValueError(f"{json.dumps(value)[:80]} cannot be an array: {error}") from error


def type_from_json(written: Any) -> pyarrow.DataType:
    """Return the Arrow type of its JSON. Raises ValueError."""
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
        case {"Map": [{"data_type": {"Struct": [dict(key), dict(item)]}}, bool(ordered)]}:
            return pyarrow.map_(_field_from_json(key), _field_from_json(item), ordered)
        case {"FixedSizeBinary": int(size)}:
            return pyarrow.binary(size)
        case {"Dictionary": [index, value]}:
            return pyarrow.dictionary(type_from_json(index), type_from_json(value))
        case {"Decimal128": [int(precision), int(scale)]}:
            return pyarrow.decimal128(precision, scale)
        case {"Decimal256": [int(precision), int(scale)]}:
            return pyarrow.decimal256(precision, scale)
        case {"Timestamp": [str(unit), zone]} if unit in _UNITS:
            return pyarrow.timestamp(_UNITS[unit], zone)
        case {"Time32": str(unit)} if unit in _UNITS:
            return pyarrow.time32(_UNITS[unit])
        case {"Time64": str(unit)} if unit in _UNITS:
            return pyarrow.time64(_UNITS[unit])
        case {"Duration": str(unit)} if unit in _UNITS:
            return pyarrow.duration(_UNITS[unit])
        case _:
            raise ValueError(f"unknown data_type {json.dumps(written)[:80]}")


def _field_from_json(field: dict[str, Any]) -> pyarrow.Field:
    import pyarrow

    nullable = field.get("nullable", True)
    return pyarrow.field(field["name"], type_from_json(field["data_type"]), nullable=nullable)


def type_to_json(kind: pyarrow.DataType) -> Any:
    """Return the JSON of a type; Arrow's name for a type without JSON."""
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
    if types.is_map(kind):
        pair = [_field_to_json(kind.key_field), _field_to_json(kind.item_field)]
        entries = {"name": "entries", "data_type": {"Struct": pair}, "nullable": False}
        return {"Map": [entries, kind.keys_sorted]}
    return _parametric_to_json(kind)


def _parametric_to_json(kind: pyarrow.DataType) -> Any:
    from pyarrow import types

    if types.is_fixed_size_binary(kind):
        return {"FixedSizeBinary": kind.byte_width}
    if types.is_dictionary(kind):
        return {"Dictionary": [type_to_json(kind.index_type), type_to_json(kind.value_type)]}
    if types.is_decimal128(kind) or types.is_decimal256(kind):
        return {f"Decimal{kind.bit_width}": [kind.precision, kind.scale]}
    if types.is_timestamp(kind):
        return {"Timestamp": [_UNIT_NAMES[kind.unit], kind.tz]}
    if types.is_time(kind):
        return {f"Time{kind.bit_width}": _UNIT_NAMES[kind.unit]}
    if types.is_duration(kind):
        return {"Duration": _UNIT_NAMES[kind.unit]}
    return str(kind)


def _written(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type whose Python values represent those of `kind` in JSON."""
    import pyarrow
    from pyarrow import types

    def field(inner: pyarrow.Field) -> pyarrow.Field:
        return inner.with_type(_written(inner.type))

    if types.is_time(kind) or types.is_duration(kind):  # pyarrow cannot parse text as these
        return pyarrow.int32() if kind.bit_width == 32 else pyarrow.int64()
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_decimal(kind):
        return pyarrow.string()
    if types.is_dictionary(kind):
        return _written(kind.value_type)
    if types.is_struct(kind):
        return pyarrow.struct([field(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_fixed_size_list(kind):
        return pyarrow.list_(field(kind.value_field), kind.list_size)
    if types.is_large_list(kind):
        return pyarrow.large_list(field(kind.value_field))
    if types.is_list(kind):
        return pyarrow.list_(field(kind.value_field))
    if types.is_map(kind):
        return pyarrow.map_(field(kind.key_field), field(kind.item_field), kind.keys_sorted)
    return kind


def _restored(value: Any, kind: pyarrow.DataType) -> Any:
    """Return the Python value of `kind`; bytes come from hexadecimal text or numbers."""
    from pyarrow import types

    if value is None:
        return None
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return bytes.fromhex(value) if isinstance(value, str) else bytes(value)
    if types.is_struct(kind) and isinstance(value, dict):
        known = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return {key: _restored(value[key], known[key]) for key in value if key in known}
    if types.is_map(kind) and isinstance(value, list):
        return [(_restored(k, kind.key_type), _restored(v, kind.item_type)) for k, v in value]
    if _is_list(kind) and isinstance(value, list):
        return [_restored(element, kind.value_type) for element in value]
    return value


def _is_list(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


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
    """Return `data` and `data_type` of an array."""
    storage = getattr(array, "storage", array)
    written = _written(storage.type)
    plain = storage if written.equals(storage.type) else storage.cast(written)
    return {"data": plain.to_pylist(), "data_type": type_to_json(storage.type)}


def dumps(value: Any) -> str:
    """Return one line of JSON. Bytes become hexadecimal text, dates ISO text, NaN stays NaN."""
    return json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
