"""JSON Merge Patch (RFC 7396): differences between two states; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

State = Mapping[str, Any]
"""A JSON object without null, which means deletion in a patch."""


def difference(before: State, now: State) -> dict[str, Any]:
    """Return the patch that turns ``before`` into ``now``; empty if they are equal."""
    if before is now:
        return {}
    patch: dict[str, Any] = {key: None for key in before if key not in now}
    for key, value in now.items():
        old = before.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            inner = difference(old, value)
            if inner:
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch
