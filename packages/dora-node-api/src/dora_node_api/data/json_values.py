"""Arrow values as JSON with their type, in files of test events and outputs.

Types are named as in dora-rs: `"Int64"`, `"Utf8"`, `{"Struct": [...]}`, `{"List": {...}}`,
`{"Timestamp": ["Nanosecond", null]}`. Without a type, pyarrow infers one from the Python value.
Dates, timestamps and decimals are text, other times numbers, bytes hexadecimal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow
from pyarrow import types

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


_UNKNOWN = "unknown data_type"


def array_from_json(value: Any, data_type: Any = None) -> pyarrow.Array:
    """Return an array from JSON: a list is its elements, anything else its one element.

    Raises ValueError for an unknown type or a value of another type.
    """
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
    try:
        if isinstance(written, str):
            made: pyarrow.DataType = getattr(pyarrow, _BY_NAME[written])()
            return made
        name = next(iter(written), "")
        return _FROM_JSON[name](written[name])
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        if str(error).startswith(_UNKNOWN):
            raise  # it names the inner type
        raise ValueError(f"{_UNKNOWN} {json.dumps(written)[:80]}") from None


def _field(written: dict[str, Any]) -> pyarrow.Field:
    nullable = written.get("nullable", True)
    return pyarrow.field(written["name"], type_from_json(written["data_type"]), nullable=nullable)


def _map(given: Any) -> pyarrow.DataType:
    entries, is_sorted = given
    key, item = entries["data_type"]["Struct"]
    return pyarrow.map_(_field(key), _field(item), is_sorted)


_FROM_JSON: dict[str, Callable[[Any], pyarrow.DataType]] = {
    "Struct": lambda fields: pyarrow.struct([_field(one) for one in fields]),
    "List": lambda item: pyarrow.list_(_field(item)),
    "LargeList": lambda item: pyarrow.large_list(_field(item)),
    "FixedSizeList": lambda given: pyarrow.list_(_field(given[0]), given[1]),
    "Map": _map,
    "FixedSizeBinary": pyarrow.binary,
    "Dictionary": lambda given: pyarrow.dictionary(*map(type_from_json, given)),
    "Decimal128": lambda given: pyarrow.decimal128(*given),
    "Decimal256": lambda given: pyarrow.decimal256(*given),
    "Timestamp": lambda given: pyarrow.timestamp(_UNITS[given[0]], given[1]),
    "Time32": lambda unit: pyarrow.time32(_UNITS[unit]),
    "Time64": lambda unit: pyarrow.time64(_UNITS[unit]),
    "Duration": lambda unit: pyarrow.duration(_UNITS[unit]),
}


def type_to_json(kind: pyarrow.DataType) -> Any:
    """Return the JSON of a type; Arrow's name for a type without JSON."""
    for name, function in _BY_NAME.items():
        if name not in ("Bool", "String") and kind.equals(getattr(pyarrow, function)()):
            return name
    for is_kind, name, parameters in _TO_JSON:
        if is_kind(kind):
            return {name.format(kind.bit_width) if "{" in name else name: parameters(kind)}
    return str(kind)


def _field_to_json(field: pyarrow.Field) -> dict[str, Any]:
    written = type_to_json(field.type)
    return {"name": field.name, "data_type": written, "nullable": field.nullable}


def _entries(kind: pyarrow.MapType) -> Any:
    pair = [_field_to_json(kind.key_field), _field_to_json(kind.item_field)]
    entries = {"name": "entries", "data_type": {"Struct": pair}, "nullable": False}
    return [entries, kind.keys_sorted]


_TO_JSON: list[tuple[Callable[[Any], bool], str, Callable[[Any], Any]]] = [
    (types.is_struct, "Struct", lambda kind: [_field_to_json(one) for one in kind]),
    (types.is_fixed_size_list, "FixedSizeList",
     lambda kind: [_field_to_json(kind.value_field), kind.list_size]),
    (types.is_large_list, "LargeList", lambda kind: _field_to_json(kind.value_field)),
    (types.is_list, "List", lambda kind: _field_to_json(kind.value_field)),
    (types.is_map, "Map", _entries),
    (types.is_fixed_size_binary, "FixedSizeBinary", lambda kind: kind.byte_width),
    (types.is_dictionary, "Dictionary",
     lambda kind: [type_to_json(kind.index_type), type_to_json(kind.value_type)]),
    (types.is_decimal, "Decimal{}", lambda kind: [kind.precision, kind.scale]),
    (types.is_timestamp, "Timestamp", lambda kind: [_UNIT_NAMES[kind.unit], kind.tz]),
    (types.is_time, "Time{}", lambda kind: _UNIT_NAMES[kind.unit]),
    (types.is_duration, "Duration", lambda kind: _UNIT_NAMES[kind.unit]),
]  # fmt: skip


def _written(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type whose Python values represent those of `kind` in JSON."""

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
    if value is None:
        return None
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return bytes.fromhex(value) if isinstance(value, str) else bytes(value)
    if types.is_struct(kind) and isinstance(value, dict):
        known = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        return {key: _restored(value[key], known[key]) for key in value if key in known}
    if types.is_map(kind) and isinstance(value, list):
        return [(_restored(k, kind.key_type), _restored(v, kind.item_type)) for k, v in value]
    if isinstance(value, list) and hasattr(kind, "value_field"):
        return [_restored(element, kind.value_type) for element in value]
    return value


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
