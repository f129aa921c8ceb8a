"""Compare a message with a recorded one: the first field that differs; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

MAX_SHOWN = 80
"""Characters of a value that an error shows."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Tolerances of numbers, and the fields that are not compared."""

    atol: float = 0.0
    rtol: float = 0.0
    ignore: frozenset[str] = frozenset()
    """Names of fields, or paths such as `metadata.stamp`."""

    def ignores(self, path: str) -> bool:
        """Return whether a field is not compared."""
        names = _without_indexes(path)
        return bool(self.ignore) and not self.ignore.isdisjoint((names, names.rpartition(".")[2]))


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first field of a message that differs."""

    path: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"differs in {self.path}\n  recorded: {self.recorded}\n  this run: {self.found}"


def differing(
    recorded: tuple[pa.Array, Mapping[str, Any]],
    found: tuple[pa.Array, Mapping[str, Any]],
    tolerance: Tolerance,
) -> Mismatch | None:
    """Return the first difference of two messages, each a value with metadata."""
    return _values(recorded[0], found[0], tolerance) or _differ(
        dict(recorded[1]), dict(found[1]), "metadata", tolerance
    )


def _values(recorded: pa.Array, found: pa.Array, tolerance: Tolerance) -> Mismatch | None:
    if tolerance.ignores("value") or recorded.equals(found):
        return None
    if recorded.type != found.type:
        return Mismatch("type of value", str(recorded.type), str(found.type))
    if (
        len(recorded) == len(found)
        and pa.types.is_floating(recorded.type)
        and not recorded.null_count
        and not found.null_count
    ):
        ours, theirs = (np.asarray(one, dtype=float) for one in (found, recorded))
        near = np.isclose(ours, theirs, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
        if near.all():
            return None
        place = int(np.argmin(near))
        return Mismatch(f"value[{place}]", _shown(theirs[place].item()), _shown(ours[place].item()))
    return _differ(recorded.to_pylist(), found.to_pylist(), "value", tolerance)


def _differ(recorded: Any, found: Any, path: str, tolerance: Tolerance) -> Mismatch | None:
    """Return the first difference of two values, by path."""
    if tolerance.ignores(path):
        return None
    if isinstance(recorded, dict) and isinstance(found, dict):
        for key in (*recorded, *(key for key in found if key not in recorded)):
            inner = f"{path}.{key}"
            if tolerance.ignores(inner):
                continue
            if key not in recorded or key not in found:
                pair = (_shown(one[key]) if key in one else "missing" for one in (recorded, found))
                return Mismatch(inner, *pair)
            if (mismatch := _differ(recorded[key], found[key], inner, tolerance)) is not None:
                return mismatch
        return None
    if isinstance(recorded, list) and isinstance(found, list):
        for place, (one, other) in enumerate(zip(recorded, found, strict=False)):
            if (mismatch := _differ(one, other, f"{path}[{place}]", tolerance)) is not None:
                return mismatch
        if len(recorded) != len(found):
            return Mismatch(f"length of {path}", str(len(recorded)), str(len(found)))
        return None
    return (
        None
        if _near(recorded, found, tolerance)
        else Mismatch(path, _shown(recorded), _shown(found))
    )


def _near(recorded: Any, found: Any, tolerance: Tolerance) -> bool:
    numbers = [
        isinstance(one, int | float) and not isinstance(one, bool) for one in (recorded, found)
    ]
    if not all(numbers):
        return bool(recorded == found)
    if math.isnan(recorded) or math.isnan(found):
        return math.isnan(recorded) and math.isnan(found)
    return recorded == found or bool(
        abs(found - recorded) <= tolerance.atol + tolerance.rtol * abs(recorded)
    )


def _without_indexes(path: str) -> str:
    return ".".join(part.partition("[")[0] for part in path.split("."))


def _shown(value: Any) -> str:
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
