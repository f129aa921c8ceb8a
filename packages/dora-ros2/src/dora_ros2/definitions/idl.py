"""Parser of the part of `.idl` files that ROS 2 uses (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from dora_ros2.definitions.description import (
    BOUNDED_STRING,
    NESTED,
    PARTS,
    STRING,
    WSTRING,
    Field,
    FieldType,
    Structure,
    structure,
    value_of,
    with_implicit,
)
from dora_ros2.errors import DefinitionError

_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*|/\*.*?\*/|\#[^\n]*)|(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
    r"""|(?P<word>[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*|[-+]?[\d.][\w.]*(?:[eE][-+]\d+)?)|(?P<mark>.)""",
    re.DOTALL | re.VERBOSE,
)
_TYPES: Final = {
    "boolean": 15, "octet": 16, "char": 13, "wchar": 14, "float": 10, "double": 11,
    "int8": 2, "uint8": 3, "int16": 4, "uint16": 5, "int32": 6, "uint32": 7, "int64": 8,
    "uint64": 9, "short": 4, "long": 6, "long long": 8, "unsigned short": 5, "unsigned long": 7,
    "unsigned long long": 9, "long double": 12,
}  # fmt: skip


def parse(name: str, text: str, *, file: str = "") -> list[Structure]:
    """Return the structures of the definition ``text`` of ``name``, itself first."""
    found = _Parser(text, file).structures()
    wanted = [f"{name}{suffix}" for suffix in PARTS[name.split("/")[1]]]
    absent = [one for one in wanted if one not in found]
    if absent:
        raise DefinitionError(f'the file does not define "{absent[0]}"', file=file)
    parts = [found.pop(one) for one in wanted]
    return [*with_implicit(name, parts), *found.values()]


class _Parser:
    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._tokens = list(self._split(text))
        self._next = 0
        self._line = 1
        self._scope: list[str] = []
        self._aliases: dict[str, FieldType] = {}
        self._numbers: dict[str, int] = {}
        self._found: dict[str, Structure] = {}

    def _split(self, text: str) -> Iterator[tuple[str, int]]:
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "skip":
                yield match[0], line
            line += match[0].count("\n")

    def _fail(self, problem: str) -> DefinitionError:
        return DefinitionError(problem, file=self._file, line=self._line)

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self, *expected: str) -> str:
        if self._next == len(self._tokens):
            raise self._fail("the definition is incomplete")
        token, self._line = self._tokens[self._next]
        self._next += 1
        if expected and token not in expected:
            raise self._fail(f'found "{token}" instead of "{expected[0]}"')
        return token

    def _accept(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._take()
        return True

    def structures(self) -> dict[str, Structure]:
        while self._next < len(self._tokens):
            self._definition()
        return self._found

    def _definition(self) -> None:
        self._annotations()
        match self._take("module", "struct", "typedef", "const"):
            case "module":
                self._scope.append(self._take())
                self._take("{")
                while not self._accept("}"):
                    self._definition()
                self._scope.pop()
            case "struct":
                self._struct()
            case "typedef":
                kind = self._type()
                name = self._take()
                self._aliases[name] = self._with_size(kind)
            case _:
                self._type()
                name = self._take()
                self._take("=")
                value = self._take()
                if value.isdigit():
                    self._numbers[name] = int(value)
                while self._peek() != ";":
                    self._take()  # the rest of an expression, or adjacent strings
        self._take(";")

    def _struct(self) -> None:
        name = "/".join([*self._scope, self._take()])
        fields = []
        self._take("{")
        while not self._accept("}"):
            written = self._annotations()
            element = self._type()
            while True:
                field_name = self._take()
                kind = self._with_size(element)
                fields.append(Field(field_name, kind, self._default(kind, written)))
                if not self._accept(","):
                    break
            self._take(";")
        self._found[name] = structure(name, fields)

    def _default(self, kind: FieldType, written: str | None) -> object:
        if written is None or kind.kind != "single":  # IDL cannot express defaults of lists
            return None
        try:
            return value_of(kind, written)
        except DefinitionError as error:
            raise self._fail(error.problem) from None

    def _annotations(self) -> str | None:
        """Skip annotations; return the value of ``@default``."""
        default = None
        while self._accept("@"):
            name = self._take()
            if self._accept("("):
                held: list[str] = []
                while not self._accept(")"):
                    held.append(self._take())
                if name == "default" and held[:2] == ["value", "="]:
                    default = "".join(held[2:])
        return default

    def _number(self) -> int:
        token = self._take()
        number = self._numbers.get(token.rpartition("::")[2])
        if number is None and token.isdigit():
            number = int(token)
        if number is None:
            raise self._fail(f'"{token}" is not a number')
        return number

    def _with_size(self, kind: FieldType) -> FieldType:
        if not self._accept("["):
            return kind
        size = self._number()
        self._take("]")
        return self._several(kind, "array", size)

    def _several(self, kind: FieldType, of: str, capacity: int) -> FieldType:
        if kind.kind != "single":
            raise self._fail("ROS 2 has no sequences of sequences")
        return kind.several(of, capacity)

    def _type(self) -> FieldType:
        name = self._take()
        if name == "sequence":
            self._take("<")
            element = self._type()
            capacity = self._number() if self._accept(",") else 0
            self._take(">")
            return self._several(element, "bounded" if capacity else "sequence", capacity)
        if name in ("string", "wstring"):
            kind = STRING if name == "string" else WSTRING
            if not self._accept("<"):
                return FieldType(kind)
            capacity = self._number()
            self._take(">")
            return FieldType(kind + BOUNDED_STRING - STRING, string_capacity=capacity)
        while name in ("unsigned", "long", "unsigned long") and self._peek() in (
            "short", "long", "double",
        ):  # fmt: skip
            name = f"{name} {self._take()}"
        if name in _TYPES:
            return FieldType(_TYPES[name])
        alias = self._aliases.get(name.rpartition("::")[2])
        if alias is not None:
            return alias
        parts = name.split("::")
        full = "/".join([*self._scope, name] if len(parts) == 1 else parts)
        if full.count("/") != 2:
            raise self._fail(f'"{name}" is not a type')
        return FieldType(NESTED, nested=full)
