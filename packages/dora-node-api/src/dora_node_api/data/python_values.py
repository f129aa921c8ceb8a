"""Values of Arrow as Python objects, also times that Python's types cannot represent."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_NOT_REPRESENTABLE = (ValueError, OverflowError, LookupError)  # LookupError: unknown time zone


def python_values(array: pa.Array) -> list[Any]:
    """Return what ``to_pylist`` does; times with nanoseconds or beyond the year 9999 become text.

    Raises ValueError.
    """
    try:
        values: list[Any] = array.to_pylist()
    except _NOT_REPRESENTABLE:
        values = [python_value(one) for one in array]
    return values


def python_value(scalar: pa.Scalar) -> Any:
    """Return what ``as_py`` does; times that Python cannot represent become text."""
    try:
        return scalar.as_py()
    except _NOT_REPRESENTABLE as error:
        if isinstance(scalar, pa.StructScalar):
            return {name: python_value(value) for name, value in scalar.items()}
        if isinstance(scalar, pa.ListScalar):
            return python_values(scalar.values)
        if not pa.types.is_temporal(scalar.type):
            raise ValueError(str(error)) from error
        return scalar.cast(pa.string()).as_py()
