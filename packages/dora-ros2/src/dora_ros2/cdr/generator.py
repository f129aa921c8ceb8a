"""Base of the generators of readers and writers: lines of code, and the known part of the position.

Numbers that follow each other are collected in a group, which one call packs or unpacks. Padding
within a group is part of its format; elsewhere it is computed when the code is generated if the
position is known, and otherwise when it runs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from dora_ros2.definitions.description import FieldType, TypeDescription
from dora_ros2.errors import DefinitionError, MalformedMessage

LONG = 512
"""Elements from which on the memory of a list of numbers is shared, not converted."""


_NUMBERS: Final = {
    "b": pa.int8(), "B": pa.uint8(), "h": pa.int16(), "H": pa.uint16(), "i": pa.int32(),
    "I": pa.uint32(), "q": pa.int64(), "Q": pa.uint64(), "f": pa.float32(), "d": pa.float64(),
    "?": pa.bool_(),
}  # fmt: skip

_SMALL_BYTES: Final = 4096
"""Bytes below which conversion to Python objects is faster than a search for long lists."""

View = tuple[tuple[int, ...], int | pa.Array, int]
"""List or text: path as indexes of fields, elements or their offset in the payload, number."""


def arrow_type(description: TypeDescription, name: str | None = None) -> pa.StructType:
    """Return the Arrow type of a message, by default that of the whole description."""
    return pa.struct(
        [
            pa.field(field.name, field_type(description, field.type))
            for field in description.structures[name or description.name].named
        ]
    )


def field_type(description: TypeDescription, kind: FieldType) -> pa.DataType:
    """Return the Arrow type of a field."""
    if kind.kind != "single":
        return pa.list_(pa.field("item", field_type(description, kind.single)))
    if kind.nested:
        return arrow_type(description, kind.nested)
    if kind.element in (12, 14):
        raise DefinitionError(
            f'"{description.name}" has a field of type {kind.text}, which is not supported'
        )
    return pa.utf8() if kind.code is None else _NUMBERS[kind.code]


def with_views(array: pa.StructArray, views: Sequence[View], payload: pa.Buffer) -> pa.StructArray:
    """Replace empty lists and texts of a struct array of one row with those in ``payload``.

    Raises ArrowInvalid: a text is not valid UTF-8.
    """
    columns = array.flatten()
    deeper: dict[int, list[View]] = {}
    for path, start, count in views:
        if len(path) > 1:
            deeper.setdefault(path[0], []).append((path[1:], start, count))
        else:
            columns[path[0]] = _list(array.type.field(path[0]).type, payload, start, count)
    for index, below in deeper.items():
        columns[index] = with_views(columns[index], below, payload)
    return pa.StructArray.from_arrays(columns, fields=list(array.type))


def _list(kind: pa.DataType, payload: pa.Buffer, start: int | pa.Array, count: int) -> pa.Array:
    offsets = pa.py_buffer(struct.pack("=ii", 0, count))
    if isinstance(start, int):
        if kind == pa.utf8():
            text = pa.Array.from_buffers(kind, 1, [None, offsets, payload.slice(start, count)])
            text.validate(full=True)
            return text
        width = kind.value_type.bit_width // 8
        held = payload.slice(start, count * width)
        if held.address % width:
            held = pa.py_buffer(held.to_pybytes())
        start = pa.Array.from_buffers(kind.value_type, count, [None, held], 0)
    return pa.ListArray.from_buffers(kind, 1, [None, offsets], 0, children=[start])


def values(array: pa.Array) -> Any:
    """Return a struct array of one row as a dictionary, with long lists as memory views.

    Lists of numbers without nulls share the memory of the array. A list of bytes may also be
    written as Arrow binary.
    """
    if array.nbytes < _SMALL_BYTES:
        return array.to_pylist()[0]
    kind = array.type
    if pa.types.is_struct(kind):
        if array.null_count:
            return None
        return {
            kind.field(index).name: values(column) for index, column in enumerate(array.flatten())
        }
    if _is_list(kind) and kind.value_type in _CODES and not array.null_count:
        held = array.flatten()
        if held.null_count == 0:
            width = held.type.bit_width // 8
            start = held.offset * width
            buffer = held.buffers()[1] or b""
            raw = memoryview(buffer)[start : start + len(held) * width]
            code: Any = _CODES[held.type]
            return raw.cast("B").cast(code)
    return array.to_pylist()[0]


_CODES: Final = {kind: code for code, kind in _NUMBERS.items() if code != "?"}


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def malformed(*parts: object) -> MalformedMessage:
    return MalformedMessage("".join(map(str, parts)))


class Generator:
    """Base of the generators; a subclass emits code for padding and groups."""

    def __init__(self, description: TypeDescription, order: str) -> None:
        self.description = description
        self.order = order
        self.names: dict[str, Any] = {"malformed": malformed, "LONG": LONG}
        """Objects that the generated code uses, by name."""
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

    def refuse(self, condition: str, text: str, count: str = "", more: str = "") -> None:
        """Emit an error; its text is complete, or given as the parts before and after a count."""
        parts = f"{text!r}, {count}, {more!r}" if count else repr(text)
        self.emit(f"if {condition}: raise malformed({parts})")

    def refuse_more(self, label: str, count: str, allowed: int) -> None:
        more = f" elements; its type allows {allowed}"
        self.refuse(f"{count} > {allowed}", f"{label} has ", count, more)

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
        """Emit a loop; the position is unknown at its start and after it."""
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
