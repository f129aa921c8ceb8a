"""Generated writers: one Python function for each type, from dictionaries to CDR.

A writer takes dictionaries of Python values, in which lists of numbers may also be memory views,
and appends to a byte array that begins with the header. It does not check each value: if Python
refuses one, `problem_of` finds the field.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pyarrow as pa

from dora_ros2.cdr.generator import LONG, Generator, values
from dora_ros2.definitions.description import (
    PLACEHOLDER,
    Field,
    FieldType,
    Structure,
    TypeDescription,
)
from dora_ros2.errors import MalformedMessage

Writer = Callable[[Mapping[str, Any], bytearray], None]
"""Appends a message to a byte array that holds the header."""

REFUSALS: Final = (struct.error, TypeError, AttributeError, LookupError, ValueError, OverflowError)
"""Exceptions of a writer for a value that does not fit."""

_BOOLEANS: Final = {False: b"\0", True: b"\1"}


def generate_writer(description: TypeDescription) -> Writer:
    """Compile the writer of a type, little endian."""
    generator = _WriterGenerator(description)
    generator.structure(description.name, "v", "")
    generator.flush()
    return generator.compile("(v, o):", " return None")


def completed(value: Mapping[str, Any], structure: Structure) -> Mapping[str, Any]:
    """Return ``value`` with the defaults of absent fields; unknown fields are errors."""
    fields = {field.name: field for field in structure.named}
    unknown = sorted(str(name) for name in value.keys() - fields.keys())
    if unknown:
        raise MalformedMessage(
            f'"{structure.name}" has no field "{unknown[0]}"; its fields: {", ".join(fields)}'
        )
    return {
        name: value[name] if name in value else _default(field) for name, field in fields.items()
    }


def _default(field: Field) -> Any:
    kind = field.type
    if field.default is not None:
        return field.default
    if kind.kind in ("bounded", "sequence"):
        return ()
    single: Any = 0 if kind.code else {} if kind.nested else ""
    return single if kind.kind == "single" else (single,) * kind.capacity


def numbers(items: Any, code: str) -> bytes | memoryview:
    """Return the bytes of numbers: a list, or anything with a buffer of this type."""
    if isinstance(items, pa.Array):
        items = items.to_pylist()
    if not isinstance(items, list | tuple):
        try:
            view = memoryview(items)
        except TypeError:
            items = list(items)
        else:
            same = view.format == code or (
                view.format in ("l", "L") and code == ("q" if view.format == "l" else "Q")
            )
            if same and view.c_contiguous and view.ndim == 1 and code != "?":
                return view.cast("B")
            items = view.tolist()
    if code == "?":
        return b"".join([_BOOLEANS[item] for item in items])
    return struct.pack(f"<{len(items)}{code}", *items)


def _wide(text: str) -> bytes:
    """Encode as UTF-16 units of 4 bytes each."""
    units = text.encode("utf-16-le")
    wide = bytearray(2 * len(units))
    wide[0::4], wide[1::4] = units[0::2], units[1::2]
    return bytes(wide)


class _WriterGenerator(Generator):
    """Generator of writers; the code appends to the bytes in ``o``."""

    def __init__(self, description: TypeDescription) -> None:
        super().__init__(description, "<")
        self._items: list[str] = []
        self.names |= {
            "u32": struct.Struct("<I").pack,
            "zeros": [bytes(count) for count in range(8)],
            "booleans": {False: 0, True: 1},
            "numbers": numbers,
            "wide": _wide,
            "completed": completed,
        }

    def pad(self, count: int) -> None:
        self.emit(f"o += zeros[{count}]")

    def pad_to(self, size: int) -> None:
        header = "4 " if size == 8 else ""
        self.emit(f"o += zeros[{header}-len(o) & {size - 1}]")

    def emit_group(self, packed: struct.Struct) -> None:
        pack = self.new("p")
        self.names[pack] = packed.pack
        self.emit(f"o += {pack}({', '.join(self._items)})")
        self._items = []

    def structure(self, name: str, value: str, label: str) -> None:
        structure = self.description.structures[name]
        held, keys = self.new("s"), self.new("k")
        self.names[held] = structure
        self.names[keys] = {field.name for field in structure.named}
        self.emit(f"if {value}.keys() != {keys}: {value} = completed({value}, {held})")
        for field in structure.fields:
            if field.name == PLACEHOLDER:
                self.add_to_group("B")
                self._items.append("0")
            else:
                self._field(field.type, f"{value}[{field.name!r}]", f"{label}{field.name}")

    def _field(self, kind: FieldType, value: str, label: str) -> None:
        code = kind.code
        if kind.kind == "single":
            self._single(kind, value, label)
            return
        items = self.new("a")
        if kind.kind == "array":
            self.emit(f"{items} = {value}; n = len({items})")
            more = f" elements; its type has {kind.capacity}"
            self.refuse(f"n != {kind.capacity}", f"{label} has ", "n", more)
            if code and code != "?" and kind.capacity < LONG:
                self.add_to_group(code, kind.capacity)
                self._items.append(f"*{items}")
                return
            self.flush()
        else:
            self.align(4)
            self.emit(f"{items} = {value}; n = len({items}); o += u32(n)")
            if kind.capacity:
                self.refuse_more(label, "n", kind.capacity)
            self.know(4)
        if code:
            size = struct.calcsize(f"={code}")
            if size == 8:
                self.emit("if n: o += zeros[4 -len(o) & 7]")
            else:
                self.align(size)
            self.emit(f"o += numbers({items}, {code!r})")
            self.know(min(size, 4))
        else:
            element = kind.single
            one = self.new("v")
            self.emit(f"if type({items}) is str: raise TypeError('a list')")
            self.loop(f"for {one} in {items}:", lambda: self._single(element, one, f"{label}[]"))

    def _single(self, kind: FieldType, value: str, label: str) -> None:
        code = kind.code
        if code:
            self.add_to_group(code)
            self._items.append(f"booleans[{value}]" if code == "?" else value)
        elif kind.nested:
            held = self.new("v")
            self.emit(f"{held} = {value}")
            self.structure(kind.nested, held, f"{label}.")
        else:
            self._string(kind, value, label)

    def _string(self, kind: FieldType, value: str, label: str) -> None:
        self.align(4)
        if kind.wide:
            self.emit(f"s = wide({value}); n = len(s) // 4; o += u32(n) + s")
            self.know(4)
        else:
            self.emit(f"s = {value}.encode(); n = len(s); o += u32(n + 1) + s + zeros[1]")
            self.know(1)
        if kind.string_capacity:
            self.refuse_more(label, "n", kind.string_capacity)


def as_dictionary(value: Any) -> Mapping[str, Any]:
    """Return one message, given as Arrow or as a dictionary, as a dictionary."""
    if isinstance(value, pa.StructScalar):
        value = value.as_py()
    elif isinstance(value, pa.Array):
        if not pa.types.is_struct(value.type):
            raise MalformedMessage(
                f"the value is an array of type {value.type}, not a struct array of one row"
            )
        if len(value) != 1:
            raise MalformedMessage(f"the struct array has {len(value)} rows instead of one")
        value = values(value)
    if not isinstance(value, Mapping):
        raise MalformedMessage(f"the value is {_brief(value)}, not a struct array or a dictionary")
    return value


def without_nulls(value: Any, *, in_list: bool = False) -> Any:
    """Return a value without the fields that are null in messages of a list.

    In Arrow these messages have the fields of all others.
    """
    if isinstance(value, Mapping):
        return {
            name: without_nulls(one, in_list=in_list)
            for name, one in value.items()
            if one is not None or not in_list
        }
    return [without_nulls(one, in_list=True) for one in value] if isinstance(value, list) else value


def problem_of(description: TypeDescription, value: Any) -> str | None:
    """Return the problem of a value that a writer refused; None if nothing is found."""
    return _problem_of_structure(description, description.main, value, "")


def _problem_of_structure(
    description: TypeDescription, structure: Structure, value: Any, label: str
) -> str | None:
    if not isinstance(value, Mapping):
        what = f'field "{label}"' if label else "the value"
        return f"{what} is {_brief(value)}, not a message {structure.name}"
    for field in structure.fields:
        if field.name in value:
            below = f"{label}.{field.name}" if label else field.name
            found = _problem(description, field.type, value[field.name], below)
            if found is not None:
                return found
    return None


def _problem(description: TypeDescription, kind: FieldType, value: Any, label: str) -> str | None:
    if kind.kind != "single":
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            return f'field "{label}" is {_brief(value)}, not a list'
        element = kind.single
        found = (
            _problem(description, element, one, f"{label}[{index}]")
            for index, one in enumerate(value)
        )
        return next((one for one in found if one is not None), None)
    if kind.nested:
        return _problem_of_structure(description, description.structures[kind.nested], value, label)
    code = kind.code
    try:
        if code is None:
            value.encode("utf-16-le")
        else:
            numbers([value], code)
    except REFUSALS:
        return f'field "{label}" is {_brief(value)}, which is not a valid {kind.text}'
    return None


def _brief(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:50]}..."
