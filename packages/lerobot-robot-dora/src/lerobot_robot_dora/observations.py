"""The newest messages of a robot, and the features that they have; pure.

The features need no configuration: an input with pictures is a camera of that name and size, one
with numbers adds the `names` of its metadata. The first message of each input determines its
features; later ones must have the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa

from lerobot_robot_dora.messages import (
    MessageUnusable,
    Metadata,
    action_names,
    is_picture,
    named,
    names,
    size,
)


@dataclass(frozen=True, slots=True)
class Received:
    value: pa.Array
    metadata: Metadata
    captured: int
    """Nanoseconds of a monotonic clock."""


@dataclass(frozen=True, slots=True)
class Features:
    """Observations of a robot, and its actions."""

    numbers: dict[str, tuple[str, ...]]
    """Names by input."""
    cameras: dict[str, tuple[int, int]]
    """Height and width by input."""
    actions: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for ones in self.numbers.values() for name in ones)


@dataclass(slots=True)
class Observations:
    inputs: tuple[str, ...]
    newest: dict[str, Received] = field(default_factory=dict)
    _first: dict[str, Metadata] = field(default_factory=dict)
    """Metadata of the first message of each input."""

    def add(self, name: str, message: Received) -> None:
        """Take a message of an input. Raises MessageUnusable."""
        found = _shape(message.metadata)
        if not is_picture(message.metadata):
            named(message.value, message.metadata)
        expected = _shape(self._first.setdefault(name, dict(message.metadata)))
        if found != expected:
            raise MessageUnusable(f"this message has {found}, but the first one had {expected}")
        self.newest[name] = message

    def missing(self) -> tuple[str, ...]:
        """Inputs that have had no message."""
        return tuple(name for name in self.inputs if name not in self.newest)

    def old(self, now: int, max_age: int) -> tuple[str, ...]:
        """Inputs without a message that is new enough."""
        return tuple(
            name
            for name in self.inputs
            if name not in self.newest or now - self.newest[name].captured > max_age
        )

    def features(self) -> Features:
        """Return what the first messages had; each input needs one. Raises MessageUnusable."""
        numbers, cameras, actions = {}, {}, list[str]()
        for name in self.inputs:
            metadata = self._first[name]
            if is_picture(metadata):
                cameras[name] = size(metadata)
            else:
                numbers[name] = names(metadata)
                actions += action_names(metadata)
        _unique(cameras, numbers.values())
        _unique((), (tuple(actions),))
        if not actions:
            raise MessageUnusable(
                "no input has the state of the robot, numbers with `names` in their metadata;"
                f" inputs: {', '.join(self.inputs) or 'none'}"
            )
        return Features(numbers, cameras, tuple(actions))


def _shape(metadata: Metadata) -> str:
    """Return the features that later messages must have, as text. Raises MessageUnusable."""
    if is_picture(metadata):
        height, width = size(metadata)
        return f"a picture of {width} x {height} pixels"
    return f"the names {', '.join(names(metadata))}"


def _unique(cameras: Iterable[str], groups: Iterable[tuple[str, ...]]) -> None:
    """Raises MessageUnusable."""
    known = set(cameras)
    for group in groups:
        for name in group:
            if name in known:
                raise MessageUnusable(
                    f"two inputs have `{name}`; name the numbers of one of them differently,"
                    f" `left_{name}`, for example"
                )
            known.add(name)
