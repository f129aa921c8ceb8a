"""Why a test of a dataflow fails before its own assertions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from dora_config.errors import DoraError

T = TypeVar("T")


class FlowError(DoraError):
    """The dataflow cannot be tested, or one of its nodes failed."""


def find(known: Mapping[str, T], name: str, kind: str, place: str = "the dataflow has") -> T:
    """Return the value of a name. Raises FlowError with the known names."""
    if name not in known:
        names = ", ".join(known) or "none"
        raise FlowError(f'{kind} "{name}" does not exist; {place}: {names}')
    return known[name]
