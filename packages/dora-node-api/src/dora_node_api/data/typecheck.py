"""DORA_RUNTIME_TYPE_CHECK: whether what is sent has the type that the dataflow declares."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from dora_node_api.errors import InvalidData, SetUpError
from dora_node_api.protocol.messages import NodeConfig

VARIABLE = "DORA_RUNTIME_TYPE_CHECK"
# Arrow's names of what the primitive types of the standard library of types look like.
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
    """Compares the type of an array with the declared one; only primitive types are checked."""

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
    def from_environment(cls, config: NodeConfig, warn: Callable[[str], None]) -> TypeCheck | None:
        """The check that the environment asks for. Raises SetUpError for an unknown setting."""
        setting = os.environ.get(VARIABLE, "").strip().lower()
        if setting in ("", "0", "false", "off"):
            return None
        if setting not in ("1", "true", "warn", "error"):
            raise SetUpError(f"{VARIABLE}={setting!r}: expected `warn`, `error` or nothing")
        return cls(config.output_types, None if setting == "error" else warn)

    def check(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Warn of a mismatch, or raise InvalidData. Messages of services and actions are free."""
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
    """Arrow's name of the type that receivers of `data` will see."""
    kind = getattr(data, "type", None)
    if kind is None:
        kind = getattr(data, "dtype", "uint8")
    return str(kind)
