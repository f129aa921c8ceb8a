"""DORA_RUNTIME_TYPE_CHECK: compare sent data with the types that the dataflow declares."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from dora_node_api.errors import InvalidData, SetUpError

VARIABLE = "DORA_RUNTIME_TYPE_CHECK"
# Arrow's names of the primitive types of the standard type library.
_PRIMITIVES = {
    "Float32": {"float", "float32"},
    "Float64": {"double", "float64"},
    "Int32": {"int32"},
    "Int64": {"int64"},
    "UInt8": {"uint8"},
    "UInt32": {"uint32"},
    "UInt64": {"uint64"},
    "String": {"string", "large_string", "string_view"},
    "Bool": {"bool"},
}
_PREFIX = "std/core/v1/"


class TypeCheck:
    """Compares the type of an array with the declared one; checks only primitive types."""

    def __init__(self, declared: Mapping[str, Any], warn: Callable[[str], None] | None) -> None:
        """`warn` None: a mismatch is an error."""
        self._warn = warn
        self._expected = {
            output: (urn, names)
            for output, urn in declared.items()
            if isinstance(urn, str)
            and urn.startswith(_PREFIX)
            and (names := _PRIMITIVES.get(urn.removeprefix(_PREFIX)))
        }

    @classmethod
    def from_environment(
        cls, declared: Mapping[str, Any], warn: Callable[[str], None]
    ) -> TypeCheck | None:
        """Return the check that the environment selects. Raises SetUpError if it is invalid."""
        setting = os.environ.get(VARIABLE, "").strip().lower()
        if setting in ("", "0", "false", "off"):
            return None
        if setting not in ("1", "true", "warn", "error"):
            raise SetUpError(f"{VARIABLE}={setting!r} is invalid; set `warn` or `error`")
        return cls(declared, None if setting == "error" else warn)

    def check(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Warn of a mismatch, or raise InvalidData. Ignores messages of services and actions."""
        if (expected := self._expected.get(output)) is None:
            return
        if metadata and ("request_id" in metadata or "goal_id" in metadata):
            return
        urn, names = expected
        actual = type_name(data)
        if actual not in names:
            sentence = f"output `{output}` sends {actual}, but the dataflow declares {urn}"
            if self._warn is None:
                raise InvalidData(f"{sentence} ({VARIABLE}=error)")
            self._warn(sentence)


def type_name(data: Any) -> str:
    """Return Arrow's name of the type that receivers of `data` get."""
    kind = getattr(data, "type", None)
    if kind is None:
        kind = getattr(data, "dtype", "uint8")
    return str(kind)
