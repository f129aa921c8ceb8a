"""Generated readers: Python functions for each type, from CDR to nested tuples.

A reader is straight-line code: nested messages are inlined, and every count is compared with the
bytes that are left before anything is allocated for it. Long lists of numbers are not read: the
reader returns their offsets. Python objects need many times the memory of the payload, so the
reader of large payloads appends the fields of messages in lists to columns.
"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyarrow as pa

from dora_ros2.cdr.generator import LONG, Generator, View, field_type
from dora_ros2.definitions.description import PLACEHOLDER, Field, FieldType, TypeDescription

Reader = Callable[[memoryview, list[View]], tuple[Any, ...]]
"""Reads what follows the header; appends the lists that it leaves to be shared."""

LARGE: Final = 4096
"""Bytes of a payload from which messages and texts in lists are not kept as Python objects."""
_SURPLUS: Final = 100_000
"""Bytes by which lists of tiny arrays may need more than twice the memory of their payload."""
_NATIVE: Final = "<" if sys.byteorder == "little" else ">"


def generate_reader(description: TypeDescription, order: str, large: bool) -> Reader:
    """Compile a reader of a type; ``order`` is ``<`` or ``>``, as in the module `struct`."""
    generator = _ReaderGenerator(description, order, large)
    row = generator.structure(description.name, (), "")
    generator.flush()
    # Writers pad to a multiple of 4. rclpy's buffers also have room for the padding of empty lists
    # and the ends of wide strings, neither of which it writes.
    generator.refuse("e - p > 3 + slack", "", "e - p", " bytes follow the last field")
    head = "(b, views):\n p = slack = surplus = 0; e = len(b)"
    return generator.compile(head, f" return {row}")


def _wide(raw: memoryview, order: str) -> str:
    """Decode UTF-16 units that occupy 4 bytes each."""
    encoding = "utf-32-le" if order == "<" else "utf-32-be"
    units = str(raw, encoding, "surrogatepass").encode("utf-16-le", "surrogatepass")
    return units.decode("utf-16-le")


def _swapped(raw: memoryview, code: str) -> array.array[Any]:
    """Return numbers of the other byte order."""
    held = array.array(code)
    held.frombytes(raw)
    held.byteswap()
    return held


class _ReaderGenerator(Generator):
    """Generator of readers; their code uses ``b`` (bytes), ``p`` (position) and ``e`` (end)."""

    def __init__(self, description: TypeDescription, order: str, large: bool) -> None:
        super().__init__(description, order)
        self._large = large
        self._items = 0
        self._tuple = ""
        self._columns: list[str] = []
        """Variables of the columns of a list, in the order in which `_filled` takes them."""
        self._appends: list[str] | None = None
        """Lines that append an element of a list to its columns; None elsewhere."""
        self.names |= {
            "u32": struct.Struct(f"{order}I").unpack_from,
            "unpack": struct.unpack_from,
            "wide": _wide,
            "swapped": _swapped,
            "array": array.array,
            "numbers": lambda held, kind: _filled(description, kind, iter([held]), len(held)),
            "filled": lambda columns, kind, count: _filled(description, kind, iter(columns), count),
        }

    def pad(self, count: int) -> None:
        self.emit(f"p += {count}")

    def pad_to(self, size: int) -> None:
        self.emit(f"p += -p & {size - 1}")

    def emit_group(self, packed: struct.Struct) -> None:
        unpack = self.new("u")
        self.names[unpack] = packed.unpack_from
        self.refuse(f"p + {packed.size} > e", "the payload ends within a number")
        self.emit(f"{self._tuple} = {unpack}(b, p); p += {packed.size}")
        self._items = 0

    def structure(self, name: str, path: tuple[int, ...] | None, label: str) -> str:
        """Read a message; return the expression of its tuple.

        ``path`` leads to it by indexes of fields, and is None within a list.
        """
        values = []
        for index, field in enumerate(self.description.structures[name].fields):
            if field.name == PLACEHOLDER:
                self._grouped("B", 1)
                continue
            below = None if path is None else (*path, index)
            values.append(self._field(field, below, f"{label}{field.name}"))
        return f"({''.join(f'{value}, ' for value in values)})"

    def _field(self, field: Field, path: tuple[int, ...] | None, label: str) -> str:
        kind = field.type
        code = kind.code
        if kind.kind == "single":
            return self._single(kind, path, label)
        if kind.kind == "array":
            if code and kind.capacity < LONG:
                first = self._grouped(code, kind.capacity)
                value = f"{self._tuple}[{first}:{self._items}]"
                if self._appends is not None:
                    self._appends.append(f"{self._new_column(code)}.extend({value})")
                return value
            self.flush()
            count = str(kind.capacity)
        else:
            count = self._count(kind.capacity, label)
            if self._appends is not None:
                held = self._new_column()
                self.emit(f"{held}.append({held}[-1] + {count})")
        if code:
            return self._numbers(kind, code, count, path, label)
        return self._loop(kind, count, path, label)

    def _single(self, kind: FieldType, path: tuple[int, ...] | None, label: str) -> str:
        code = kind.code
        if code:
            index = self._grouped(code, 1)
            value = f"{self._tuple}[{index}]"
            if self._appends is not None:
                self._appends.append(f"{self._new_column(code)}.append({value})")
            return value
        if kind.nested:
            return self.structure(kind.nested, path, f"{label}.")
        return self._string(kind, path, label)

    def _grouped(self, code: str, count: int) -> int:
        """Add numbers to the group; return the index of the first one in its tuple."""
        self.add_to_group(code, count)
        if self._items == 0:
            self._tuple = self.new("t")
        self._items += count
        return self._items - count

    def _new_column(self, code: str = "") -> str:
        """Return the variable of a new column of numbers, or of offsets."""
        held = self.new("c")
        made = f"array({code!r})" if code else "array('i', [0])"
        self._columns.append(f"{held} = {'bytearray()' if code == '?' else made}")
        return held

    def _count(self, allowed: int, label: str) -> str:
        """Read a number of elements; return its variable."""
        self.align(4)
        count = self.new("n")
        self.refuse("p + 4 > e", f"the payload ends within {label}")
        self.emit(f"{count}, = u32(b, p); p += 4")
        if allowed:
            self.refuse_more(label, count, allowed)
        self.know(4)
        return count

    def _numbers(
        self, kind: FieldType, code: str, count: str, path: tuple[int, ...] | None, label: str
    ) -> str:
        size = struct.calcsize(f"={code}")
        if size == 8:  # writers do not pad an empty list
            self.emit(f"if {count}: p += -p & 7", "else: slack += 8")
        else:
            self.align(size)
        value, end = self.new("v"), self.new("q")
        self.refuse(f"{count} > (e - p) // {size}", f"the payload ends within {label}")
        self.emit(f"{end} = p + {count} * {size}")
        unpacked = f"{value} = unpack(f'{self.order}{{{count}}}{code}', b, p)"
        is_swapped = self.order != _NATIVE and size > 1
        if self._appends is not None:
            raw = f"swapped(b[p:{end}], {code!r})" if is_swapped else f"b[p:{end}]"
            add = "extend" if is_swapped or code == "?" else "frombytes"
            self.emit(f"{self._new_column(code)}.{add}({raw})")
        elif path is None:
            self.emit(unpacked)
        elif code == "?":
            self.emit(f"if {count} < LONG: {unpacked}", f"else: {value} = b[p:{end}].cast('?')")
        else:
            start = "p"
            if is_swapped:
                element = self._named(kind.single)
                start = f"numbers(swapped(b[p:{end}], {code!r}), {element})"
            view = self._view(path, start, count)
            self.emit(f"if {count} < LONG: {unpacked}", f"else: {value} = (); {view}")
        self.emit(f"p = {end}")
        self.know(min(size, 4))
        return value

    def _named(self, kind: FieldType) -> str:
        held = self.new("k")
        self.names[held] = kind
        return held

    def _view(self, path: tuple[int, ...], start: str, count: str) -> str:
        return f"views.append(({path!r}, {start}, {count}))"

    def _string(self, kind: FieldType, path: tuple[int, ...] | None, label: str) -> str:
        wide = kind.wide
        bound = kind.string_capacity
        count = self._count(bound + (not wide) if bound else 0, label)
        end, value = self.new("q"), self.new("v")
        self.emit(f"{end} = p + {count}{' * 4' if wide else ''}")
        self.refuse(f"{end} > e", f"the payload ends within {label}")
        text = f"wide(b[p:{end}], {self.order!r})"
        if wide:
            self.emit("slack += 4")
        else:
            text = f"str(b[p:{end} - 1], 'utf-8') if {count} else ''"
            self.refuse(f"{count} and b[{end} - 1]", f"{label} does not end with a NUL")
        if self._appends is not None:
            held, offsets = self._new_column("?"), self._new_column()
            raw = f"{text}.encode()" if wide else f"b[p:{end} - 1] if {count} else b''"
            self.emit(f"{held} += {raw}", f"{offsets}.append(len({held}))")
        elif path is None or wide:
            self.emit(f"{value} = {text}")
        else:
            # A Python text may have four bytes for each character.
            view = self._view(path, "p", f"{count} - 1")
            self.emit(f"if {count} > {LARGE}: {value} = ''; {view}", f"else: {value} = {text}")
        self.emit(f"p = {end}")
        self.know(4 if wide else 1)
        return value

    def _loop(self, kind: FieldType, count: str, path: tuple[int, ...] | None, label: str) -> str:
        """Read messages or strings one by one: into a list, or into columns."""
        element = kind.single
        least, surplus = _sizes(self.description, element)
        self.refuse(f"{count} > (e - p) // {least}", f"the payload ends within {label}")
        value, begin, outer = self.new("v"), len(self._lines), self._appends
        if self._large and surplus > 0 and (outer is None or kind.kind != "array"):
            self.emit(f"surplus += {count} * {surplus}")
            more = " elements, which need more than twice the memory of the message"
            self.refuse(f"surplus > {_SURPLUS}", f"{label} has ", count, more)

        def body() -> None:
            self._appends = [] if self._large else None
            expression = self._single(element, None, f"{label}[]")
            self.flush()
            self.emit(*(self._appends or ()))
            if not self._large:
                self.emit(f"{value}.append({expression})")

        self.loop(f"for _ in range({count}):", body)
        self._appends = outer
        if not self._large:
            self._lines.insert(begin, f"{' ' * self._depth}{value} = []")
        elif path is not None:
            self._lines[begin:begin] = [" " * self._depth + line for line in self._columns]
            columns = ", ".join(line.partition(" ")[0] for line in self._columns)
            filled = f"filled([{columns}], {self._named(element)}, {count})"
            self.emit(f"{self._view(path, filled, count)}; {value} = ()")
            self._columns = []
        return value


def _sizes(description: TypeDescription, kind: FieldType) -> tuple[int, float]:
    """Return the fewest bytes of an element in a payload without padding, and its surplus.

    The surplus is the memory of its columns beyond twice that size; it is rarely positive.
    """
    if kind.kind == "array":
        element = kind.single
        size, surplus = _sizes(description, element)
        return size * kind.capacity, surplus * kind.capacity + 4
    if kind.kind == "single" and kind.nested:
        fields = description.structures[kind.nested].fields
        sizes, more = zip(*(_sizes(description, field.type) for field in fields), strict=True)
        return sum(sizes), sum(more)
    code = kind.code if kind.kind == "single" else None
    size = struct.calcsize(f"={code}") if code else 4
    return size, -size * 15 / 16  # columns are allocated with a surplus of 1/16


def _filled(
    description: TypeDescription,
    kind: FieldType,
    columns: Iterator[Any],
    count: int,
) -> pa.Array:
    """Return elements whose columns were filled.

    Raises ArrowInvalid: a text is not valid UTF-8.
    """
    arrow = field_type(description, kind)
    if kind.kind != "single":
        if kind.kind == "array":
            ends = range(0, count * kind.capacity + 1, kind.capacity)
            offsets = array.array("i", ends)
        else:
            offsets = next(columns)
        child = _filled(description, kind.single, columns, offsets[-1])
        buffers = [None, pa.py_buffer(offsets)]
        return pa.ListArray.from_buffers(arrow, count, buffers, children=[child])
    if kind.nested:
        children = [
            _filled(description, field.type, columns, count)
            for field in description.structures[kind.nested].named
        ]
        return pa.StructArray.from_buffers(arrow, count, [None], children=children)
    if arrow == pa.bool_():
        return pa.array(memoryview(next(columns)).cast("?"), arrow)
    held = pa.py_buffer(next(columns))
    if arrow != pa.utf8():
        return pa.Array.from_buffers(arrow, count, [None, held])
    text = pa.Array.from_buffers(arrow, count, [None, pa.py_buffer(next(columns)), held])
    text.validate(full=True)
    return text
