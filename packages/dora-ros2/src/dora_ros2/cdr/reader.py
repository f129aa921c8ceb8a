"""Generated readers: one Python function for each type, from CDR to nested tuples.

A reader is straight-line code: nested messages are inlined, and every count is compared with the
bytes that are left before anything is allocated for it. Long lists of numbers are not read: the
reader returns where they lie. Python objects need many times the memory of what they are read from:
other long lists become Arrow arrays in batches, or are read when Arrow takes their elements.
"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from dora_ros2.cdr.generator import LONG, Generator, View, element_type
from dora_ros2.definitions.description import (
    BOUNDED_WSTRING,
    NESTED,
    NUMBERS,
    PLACEHOLDER,
    WSTRING,
    Field,
    FieldType,
    TypeDescription,
)
from dora_ros2.errors import MalformedMessage

Reader = Callable[[memoryview, list[View]], tuple[Any, ...]]
"""Reads what follows the header; appends the lists that it leaves to be shared."""

_BATCH: Final = 16_384
"""Bytes of a payload from which elements of a list are not kept as Python objects."""
_NATIVE: Final = "<" if sys.byteorder == "little" else ">"


def generate_reader(description: TypeDescription, order: str) -> Reader:
    """Compile the reader of a type; ``order`` is ``<`` or ``>``, as in the module `struct`."""
    generator = _ReaderGenerator(description, order)
    row = generator.structure(description.name, (), "")
    generator.flush()
    # Writers pad to a multiple of 4. rclpy's buffers also have room for the padding of empty lists
    # and the ends of wide strings, neither of which it writes.
    tail = f" if e - p > 3 + slack: raise rest(e - p)\n return {row}"
    return generator.compile("(b, views):\n p = slack = 0; e = len(b)", tail)


def _unterminated(what: str) -> MalformedMessage:
    return MalformedMessage(f"{what} does not end with a NUL")


def _rest(count: int) -> MalformedMessage:
    return MalformedMessage(f"{count} bytes follow the last field")


def _wide(raw: memoryview, order: str) -> str:
    """Decode UTF-16 units of 4 bytes each."""
    encoding = "utf-32-le" if order == "<" else "utf-32-be"
    units = str(raw, encoding, "surrogatepass").encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le")


def _swapped(raw: memoryview, code: str, kind: pa.DataType) -> pa.Array:
    """Return numbers of the other byte order."""
    held = array.array(code)
    held.frombytes(raw)
    held.byteswap()
    return pa.Array.from_buffers(kind, len(held), [None, pa.py_buffer(held)])


def _joined(batches: list[pa.Array], rest: list[Any], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([*batches, pa.array(rest, kind)])


class _Rows(Sequence[Any]):
    """Messages of the same layout, each read when it is taken."""

    def __init__(
        self, raw: memoryview, packed: struct.Struct, row: Callable[[Any], tuple[Any, ...]]
    ) -> None:
        self._raw = raw
        self._unpack = packed.unpack_from
        self._size = packed.size
        self._row = row

    def __len__(self) -> int:
        return len(self._raw) // self._size

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return self._row(self._unpack(self._raw, index * self._size))


class _ReaderGenerator(Generator):
    """The code has the bytes in ``b``, the position in ``p`` and the end in ``e``."""

    def __init__(self, description: TypeDescription, order: str) -> None:
        super().__init__(description, order)
        self._items = 0
        self._tuple = ""
        self.names |= {
            "u32": struct.Struct(f"{order}I").unpack_from,
            "unpack": struct.unpack_from,
            "unterminated": _unterminated,
            "rest": _rest,
            "wide": _wide,
            "swapped": _swapped,
            "array": pa.array,
            "joined": _joined,
            "Rows": _Rows,
            "BATCH": _BATCH,
        }

    def pad(self, count: int) -> None:
        self.emit(f"p += {count}")

    def pad_to(self, size: int) -> None:
        self.emit(f"p += -p & {size - 1}")

    def emit_group(self, packed: struct.Struct) -> None:
        unpack = self.new("u")
        self.names[unpack] = packed.unpack_from
        self.emit(
            f"if p + {packed.size} > e: raise short('a number')",
            f"{self._tuple} = {unpack}(b, p); p += {packed.size}",
        )
        self._items = 0

    def structure(self, name: str, path: tuple[int, ...] | None, label: str) -> str:
        """Read a message; return the expression of its tuple.

        ``path`` leads to it by indexes of fields, and is None within a sequence.
        """
        values = []
        for index, field in enumerate(self.description.structures[name].fields):
            below = None if path is None else (*path, index)
            value = self._field(field, below, f"{label}{field.name}")
            if field.name != PLACEHOLDER:
                values.append(value)
        return _tuple_of(values)

    def _field(self, field: Field, path: tuple[int, ...] | None, label: str) -> str:
        kind = field.type
        code = NUMBERS.get(kind.element)
        if kind.kind == "single":
            return self._single(kind, path, label)
        if kind.kind == "array":
            if code and kind.capacity < LONG:
                return self._grouped(code, kind.capacity, as_tuple=True)
            self.flush()
            count = str(kind.capacity)
        else:
            count = self._count(kind.capacity, label)
        if code:
            return self._numbers(kind, code, count, path, label)
        layout = _layout(self.description, kind.nested) if kind.element == NESTED else None
        if layout is not None:
            return self._rows(*layout, count, label)
        return self._loop(kind, count, path, label)

    def _single(self, kind: FieldType, path: tuple[int, ...] | None, label: str) -> str:
        code = NUMBERS.get(kind.element)
        if code:
            return self._grouped(code, 1, as_tuple=False)
        if kind.element == NESTED:
            return self.structure(kind.nested, path, f"{label}.")
        return self._string(kind, path, label)

    def _grouped(self, code: str, count: int, *, as_tuple: bool) -> str:
        self.add_to_group(code, count)
        if self._items == 0:
            self._tuple = self.new("t")
        first, self._items = self._items, self._items + count
        return f"{self._tuple}[{first}:{self._items}]" if as_tuple else f"{self._tuple}[{first}]"

    def _count(self, allowed: int, label: str) -> str:
        """Read a number of elements; return its variable."""
        self.align(4)
        count = self.new("n")
        self.emit(
            f"if p + 4 > e: raise short({label!r})",
            f"{count}, = u32(b, p); p += 4",
        )
        if allowed:
            self.emit(f"if {count} > {allowed}: raise too_many({label!r}, {count}, {allowed})")
        self.know(4)
        return count

    def _before_elements(self, count: str, alignment: int, size: int, label: str) -> None:
        """Align unless there are none, as writers do, and check that all are there."""
        if alignment == 8:
            self.emit(f"if {count}: p += -p & 7", "else: slack += 8")
        else:
            self.align(alignment)
        self.emit(f"if {count} > (e - p) // {size}: raise short({label!r})")

    def _numbers(
        self, kind: FieldType, code: str, count: str, path: tuple[int, ...] | None, label: str
    ) -> str:
        size = struct.calcsize(f"={code}")
        self._before_elements(count, size, size, label)
        value, end = self.new("v"), self.new("q")
        self.emit(f"{end} = p + {count} * {size}")
        unpacked = f"{value} = unpack(f'{self.order}{{{count}}}{code}', b, p)"
        if self.order != _NATIVE and size > 1:
            self.emit(
                f"if {count} < LONG: {unpacked}",
                f"else: {value} = swapped(b[p:{end}], {code!r}, {self._type(kind)})",
            )
            if path is not None:
                self.emit(
                    f"if {count} >= LONG:", f" {self._view(path, value, count)}; {value} = ()"
                )
        elif path is None or code == "?":
            self.emit(
                f"if {count} < LONG: {unpacked}",
                f"else: {value} = b[p:{end}].cast({code!r})",
            )
        else:
            self.emit(
                f"if {count} < LONG: {unpacked}",
                f"else: {value} = (); {self._view(path, 'p', count)}",
            )
        self.emit(f"p = {end}")
        self.know(min(size, 4))
        return value

    def _type(self, kind: FieldType) -> str:
        """Return the name of the Arrow type of the elements of a field."""
        held = self.new("k")
        self.names[held] = element_type(self.description, kind)
        return held

    def _view(self, path: tuple[int, ...], start: str, count: str) -> str:
        return f"views.append(({path!r}, {start}, {count}))"

    def _string(self, kind: FieldType, path: tuple[int, ...] | None, label: str) -> str:
        wide = kind.element in (WSTRING, BOUNDED_WSTRING)
        bound = kind.string_capacity
        count = self._count(bound + (not wide) if bound else 0, label)
        end, value = self.new("q"), self.new("v")
        self.emit(
            f"{end} = p + {count}{' * 4' if wide else ''}",
            f"if {end} > e: raise short({label!r})",
        )
        if wide:
            self.emit(f"{value} = wide(b[p:{end}], {self.order!r}); slack += 4")
        else:
            kept = f"b[p:{end} - 1]"
            if path is not None:
                kept = f"''; {self._view(path, 'p', f'{count} - 1')}"
            self.emit(
                f"if {count} and b[{end} - 1]: raise unterminated({label!r})",
                # A Python text may have four bytes for each character.
                f"if {count} > BATCH: {value} = {kept}",
                f"else: {value} = str(b[p:{end} - 1], 'utf-8') if {count} else ''",
            )
        self.emit(f"p = {end}")
        self.know(4 if wide else 1)
        return value

    def _rows(self, form: str, row: str, alignment: int, count: str, label: str) -> str:
        """Read messages that all have the same layout by one call."""
        packed = struct.Struct(self.order + form)
        self._before_elements(count, alignment, packed.size, label)
        value, end, unpack = self.new("v"), self.new("q"), self.new("u")
        layout = self.new("f")
        self.names[unpack], self.names[layout] = packed.iter_unpack, packed
        self.emit(
            f"{end} = p + {count} * {packed.size}",
            f"if {end} - p <= BATCH: {value} = [{row} for t in {unpack}(b[p:{end}])]",
            f"else: {value} = Rows(b[p:{end}], {layout}, lambda t: {row})",
            f"p = {end}",
        )
        self.know(min(alignment, 4))
        return value

    def _loop(self, kind: FieldType, count: str, path: tuple[int, ...] | None, label: str) -> str:
        """Read messages or strings one by one."""
        value, batches, first = (self.new(one) for one in "vcq")
        element = replace(kind, type_id=kind.element, capacity=0)
        held = self._type(kind)
        least = _least(self.description, element)
        self.emit(
            f"if {count} > (e - p) // {least}: raise short({label!r})",
            f"{value} = []; {batches} = []; {first} = p",
        )

        def body() -> None:
            expression = self._single(element, None, f"{label}[]")
            self.flush()
            self.emit(
                f"{value}.append({expression})",
                f"if p - {first} > BATCH:",
                f" {batches}.append(array({value}, {held})); {value} = []; {first} = p",
            )

        self.loop(f"for _ in range({count}):", body)
        self.emit(f"if {batches}:", f" {value} = joined({batches}, {value}, {held})")
        if path is not None:
            self.emit(f" {self._view(path, f'{value}.combine_chunks()', count)}; {value} = ()")
        return value


def _tuple_of(values: list[str]) -> str:
    return f"({''.join(f'{value}, ' for value in values)})"


def _least(description: TypeDescription, kind: FieldType) -> int:
    """Return the least number of bytes of a field, without padding."""
    if kind.kind in ("bounded", "sequence"):
        return 4
    code = NUMBERS.get(kind.element)
    if code:
        size = struct.calcsize(f"={code}")
    elif kind.element == NESTED:
        fields = description.structures[kind.nested].fields
        size = sum(_least(description, field.type) for field in fields)
    else:
        size = 4
    return size * max(kind.capacity, 1)


def _layout(description: TypeDescription, name: str) -> tuple[str, str, int] | None:
    """Return format, expression of the tuple and alignment of a message without padding.

    None if the elements of a sequence of this message do not all have the same layout.
    """
    form = ""
    size = items = 0
    largest = 1

    def row(one: str) -> str | None:
        nonlocal form, size, items, largest
        values = []
        for field in description.structures[one].fields:
            kind = field.type
            code = NUMBERS.get(kind.element)
            value: str | None = None
            if code and kind.kind in ("single", "array") and kind.capacity < LONG:
                width = struct.calcsize(f"={code}")
                if size % width == 0 and field.name != PLACEHOLDER:
                    count = kind.capacity or 1
                    several = kind.kind == "array"
                    value = f"t[{items}:{items + count}]" if several else f"t[{items}]"
                    form += f"{count}{code}"
                    size, items, largest = size + count * width, items + count, max(largest, width)
            elif kind.element == NESTED and kind.kind == "single":
                value = row(kind.nested)
            if value is None:
                return None
            values.append(value)
        return _tuple_of(values)

    expression = row(name)
    if expression is None or size % largest:
        return None
    return form, expression, largest
