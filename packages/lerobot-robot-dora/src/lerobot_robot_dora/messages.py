"""Numbers with names and pictures, as messages carry them; pure.

A state or an action is an array of numbers with their `names` in the metadata, such as
`shoulder_pan.pos`. A state may also have `action_names`, the names of the actions that its robot
takes; without it they are the names of the state. `observed_at` is when it was observed, by the
monotonic clock of the robot's machine. A picture is an array of bytes with `width`, `height` and
`encoding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

NAMES, ACTION_NAMES, OBSERVED_AT = "names", "action_names", "observed_at"
MAX_AGE = 0.2
"""Default age in seconds beyond which a message is not used."""
Metadata = Mapping[str, Any]


class MessageUnusable(ValueError):
    """A message cannot be used; the text says why."""


def is_picture(metadata: Metadata) -> bool:
    return "width" in metadata and "height" in metadata


def size(metadata: Metadata) -> tuple[int, int]:
    """Return height and width of a picture. Raises MessageUnusable."""
    height, width = (metadata.get(key) for key in ("height", "width"))
    if type(height) is not int or type(width) is not int or min(height, width) <= 0:
        raise MessageUnusable(f"a picture of {width!r} x {height!r} pixels is not valid")
    return height, width


def names(metadata: Metadata, key: str = NAMES) -> tuple[str, ...]:
    """Return the names of numbers. Raises MessageUnusable."""
    found = metadata.get(key)
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise MessageUnusable(
            f"the metadata has no list `{key}`; send the numbers with their names, such as"
            ' {"names": ["shoulder_pan.pos"]}'
        )
    if len(set(found)) != len(found):
        raise MessageUnusable(f"`{key}` has a name twice: {', '.join(found)}")
    return tuple(found)


def action_names(metadata: Metadata) -> tuple[str, ...]:
    """Return the names of the actions of the robot that sent a state. Raises MessageUnusable."""
    return names(metadata, ACTION_NAMES if ACTION_NAMES in metadata else NAMES)


def numbers(value: pa.Array) -> list[float]:
    """Raises MessageUnusable."""
    kind = value.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)) or value.null_count:
        raise MessageUnusable(f"the message is {kind}; expected numbers without null")
    return [float(number) for number in value.to_pylist()]


def named(value: pa.Array, metadata: Metadata) -> dict[str, float]:
    """Return the numbers of a message by name. Raises MessageUnusable."""
    found, values = names(metadata), numbers(value)
    if len(found) != len(values):
        raise MessageUnusable(f"there are {len(values)} numbers, but {len(found)} names")
    return dict(zip(found, values, strict=True))


def action(value: pa.Array, metadata: Metadata, expected: Sequence[str]) -> dict[str, float]:
    """Return an action with exactly the expected names, in that order. Raises MessageUnusable."""
    found = named(value, metadata)
    if found.keys() != set(expected):
        raise MessageUnusable(difference(list(found), expected))
    return {name: found[name] for name in expected}


def difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """Return in which names two actions differ."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    parts = [
        f"{word} {', '.join(which)}"
        for word, which in (("without", missing), ("unknown", unknown))
        if which
    ]
    return f"the names differ from the robot's: {'; '.join(parts)}"


def array(values: Sequence[float]) -> pa.Array:
    return pa.array(values, pa.float32())
