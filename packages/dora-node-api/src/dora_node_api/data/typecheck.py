"""DORA_RUNTIME_TYPE_CHECK: compare sent data with the types that the dataflow declares.

The runner sends the structure of each standard type: the name of an Arrow type such as `UInt32`, a
list with the structure of its values, or a mapping of the fields of a struct.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from dora_node_api.errors import InvalidData, SetUpError

VARIABLE = "DORA_RUNTIME_TYPE_CHECK"
_BYTES: Final = "LargeBinary"
_NAMES: Final[Mapping[str, frozenset[str]]] = {
    "Float32": frozenset({"float", "float32"}),
    "Float64": frozenset({"double", "float64"}),
    "Int32": frozenset({"int32"}),
    "Int64": frozenset({"int64"}),
    "UInt8": frozenset({"uint8"}),
    "UInt32": frozenset({"uint32"}),
    "UInt64": frozenset({"uint64"}),
    "Utf8": frozenset({"string", "large_string", "string_view"}),
    "Boolean": frozenset({"bool"}),
    _BYTES: frozenset({"binary", "large_binary", "binary_view", "uint8"}),
}
"""Names that Arrow and numpy use for these types. Bytes may be an array of UInt8."""


class OutputTypeCheck:
    """Compares the type of an array with the declared one."""

    def __init__(
        self,
        declared: Mapping[str, Any],
        structures: Mapping[str, Any],
        warn: Callable[[str], None] | None,
    ) -> None:
        """`warn` None: a mismatch is an error."""
        self._warn = warn
        self._expected = {name: (str(declared[name]), one) for name, one in structures.items()}

    @classmethod
    def from_environment(
        cls,
        declared: Mapping[str, Any],
        structures: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> OutputTypeCheck | None:
        """Return the check that the environment selects. Raises SetUpError if it is invalid."""
        setting = os.environ.get(VARIABLE, "").strip().lower()
        if setting in ("", "0", "false", "off"):
            return None
        if setting not in ("1", "true", "warn", "error"):
            raise SetUpError(f"{VARIABLE}={setting!r} is invalid; set `warn` or `error`")
        return cls(declared, structures, None if setting == "error" else warn)

    def check(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Warn of a mismatch, or raise InvalidData. Ignores messages of services and actions."""
        if (expected := self._expected.get(output)) is None:
            return
        if metadata and ("request_id" in metadata or "goal_id" in metadata):
            return
        urn, structure = expected
        problem = mismatch(data, structure)
        if problem is None or _is_flat(data, metadata or {}, urn, structure):
            return
        sentence = f"output `{output}` sends {type_name(data)}, but the dataflow declares {urn}"
        if isinstance(structure, dict):
            sentence += f": {problem}"
        if self._warn is None:
            raise InvalidData(f"{sentence} ({VARIABLE}=error)")
        self._warn(sentence)


def type_name(data: Any) -> str:
    """Return Arrow's name of the type that receivers of `data` get."""
    return str(_type_of(data))


def _type_of(data: Any) -> Any:
    kind = getattr(data, "type", None)
    return getattr(data, "dtype", "uint8") if kind is None else kind


def mismatch(data: Any, structure: Any) -> str | None:
    """Return where the type of an array differs from a structure; None if it fits."""
    return _difference(_type_of(data), structure, "")


def _difference(kind: Any, structure: Any, place: str) -> str | None:
    """`place`: names of the fields up to here, each with a dot."""
    name = str(kind)
    if isinstance(structure, dict):
        if not name.startswith("struct<"):
            return f"{_shown(place)} is {name} instead of a struct"
        fields = {field.name: field.type for field in kind}
        for field, wanted in structure.items():
            if field not in fields:
                return f"the field `{place}{field}` is missing"
            found = _difference(fields[field], wanted, f"{place}{field}.")
            if found is not None:
                return found
        return None
    if isinstance(structure, list):
        if not name.startswith(("list<", "large_list<", "fixed_size_list<")):
            return f"{_shown(place)} is {name} instead of a list"
        return _difference(kind.value_type, structure[0], place)
    if name in _NAMES[structure] or (structure == _BYTES and _is_bytes(name)):
        return None
    return f"{_shown(place)} is {name} instead of {structure}"


def _is_bytes(name: str) -> bool:
    lists = name.startswith(("list<", "large_list<", "fixed_size_list<")) and ": uint8" in name
    return lists or name.startswith("fixed_size_binary")


def _shown(place: str) -> str:
    return f"the field `{place[:-1]}`" if place else "it"


def _is_flat(data: Any, metadata: Mapping[str, Any], urn: str, structure: Any) -> bool:
    """Return whether it is a struct with bytes whose other fields are metadata, as of an image.

    Parameters of the type, as in `std/media/v1/Image[encoding=rgb8]`, need not be repeated.
    """
    if not isinstance(structure, dict):
        return False
    data_fields = [name for name, kind in structure.items() if kind == _BYTES]
    name = type_name(data)
    numbers = any(name in _NAMES[kind] for kind in ("Float32", "Float64", _BYTES))
    if len(data_fields) != 1 or not (numbers or name.startswith(("int", "uint"))):
        return False
    given = {pair.partition("=")[0].strip() for pair in urn.partition("[")[2][:-1].split(",")}
    return structure.keys() - set(data_fields) <= metadata.keys() | given
