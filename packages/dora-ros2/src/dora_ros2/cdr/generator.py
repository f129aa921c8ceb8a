"""What generated readers and writers share: lines of code, and what is known of the position.

Numbers that follow each other are collected in a group, which one call packs or unpacks. Padding
within a group is part of its format; elsewhere it is computed when the code is generated if the
position is known, and otherwise when it runs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from dora_ros2.definitions.description import TypeDescription
from dora_ros2.errors import MalformedMessage

LONG = 512
"""Elements from which a list of numbers is not converted to Python objects, but shared."""


def short(what: str) -> MalformedMessage:
    return MalformedMessage(f"the payload ends within {what}")


def too_many(what: str, count: int, allowed: int) -> MalformedMessage:
    return MalformedMessage(f"{what} has {count} elements; its type allows {allowed}")


class Generator:
    """Base of the generators; a subclass emits code for padding and groups."""

    def __init__(self, description: TypeDescription, order: str) -> None:
        self.description = description
        self.order = order
        self.names: dict[str, Any] = {"short": short, "too_many": too_many, "LONG": LONG}
        """What the generated code refers to."""
        self._lines: list[str] = []
        self._depth = 1
        self._modulus, self._residue = 8, 0
        """The remainder of the position when it is divided by 1, 2, 4 or 8."""
        self._group = ""
        self._last = 0

    def compile(self, head: str, tail: str) -> Callable[..., Any]:
        """Return the function with the lines emitted so far between ``head`` and ``tail``."""
        source = "\n".join([f"def generated{head}", *self._lines, tail])
        namespace = dict(self.names)
        exec(compile(source, f"<{self.description.name}>", "exec"), namespace)
        generated: Callable[..., Any] = namespace["generated"]
        return generated

    def emit(self, *lines: str) -> None:
        self._lines += [" " * self._depth + line for line in lines]

    def new(self, prefix: str) -> str:
        """Return the name of a new variable."""
        self._last += 1
        return f"{prefix}_{self._last}"

    def know(self, modulus: int, residue: int = 0) -> None:
        self._modulus, self._residue = modulus, residue

    def align(self, size: int) -> None:
        """Move to a multiple of ``size``."""
        self.flush()
        if self._modulus < size:
            self.pad_to(size)
            self.know(size)
        elif self._residue % size:
            padding = -self._residue % size
            self.pad(padding)
            self._residue = (self._residue + padding) % self._modulus

    def add_to_group(self, code: str, count: int = 1) -> None:
        """Add numbers to the group, or begin another one where the padding is not known."""
        size = struct.calcsize(f"={code}")
        if self._group and self._modulus >= size:
            padding = -self._residue % size
            self._group += "x" * padding
            self._residue += padding
        else:
            self.align(size)
        self._group += code if count == 1 else f"{count}{code}"
        self._residue = (self._residue + size * count) % self._modulus

    def flush(self) -> None:
        """Emit the code of the group, if there is one."""
        if self._group:
            packed = struct.Struct(self.order + self._group)
            self._group = ""
            self.emit_group(packed)

    def loop(self, head: str, body: Callable[[], None]) -> None:
        """Emit a loop; the position is unknown at its begin and after it."""
        self.emit(head)
        self._depth += 1
        self.know(1)
        body()
        self.flush()
        self._depth -= 1
        self.know(1)

    def emit_group(self, packed: struct.Struct) -> None:
        raise NotImplementedError

    def pad(self, count: int) -> None:
        """Emit code for ``count`` bytes of padding."""
        raise NotImplementedError

    def pad_to(self, size: int) -> None:
        """Emit code for padding to a multiple of ``size``."""
        raise NotImplementedError
