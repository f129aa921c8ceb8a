"""Type descriptions of ROS 2 interfaces, their RIHS01 hashes, and the implicit types (pure).

The shape is that of `type_description_interfaces/msg/TypeDescription`, which publishers serve in
`get_type_description`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Literal

from dora_ros2.errors import DefinitionError

NESTED: Final = 1
BOOL: Final = 15
STRING: Final = 17
WSTRING: Final = 18
BOUNDED_STRING: Final = 21
BOUNDED_WSTRING: Final = 22
"""Type ids of single elements, as `type_description_interfaces/msg/FieldType` numbers them."""

NUMBERS: Final[Mapping[int, str]] = {
    2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d",
    13: "B", 15: "?", 16: "B",
}  # fmt: skip
"""Codes of the module `struct` by type id; 13 is a character, 16 a byte."""

IDS: Final[Mapping[str, int]] = {
    "int8": 2, "uint8": 3, "int16": 4, "uint16": 5, "int32": 6, "uint32": 7, "int64": 8,
    "uint64": 9, "float32": 10, "float64": 11, "char": 3, "bool": BOOL, "byte": 16,
    "string": STRING, "wstring": WSTRING,
}  # fmt: skip
"""Type ids by the names of `.msg` files."""

PLACEHOLDER: Final = "structure_needs_at_least_one_member"
"""The only field of a message without fields: one byte in CDR, absent in Arrow."""

_OTHER_NAMES: Final = {12: "long double", 13: "char", 14: "wchar"}
"""Names of the elements that only `.idl` files have."""
_MAX_FIELDS: Final = 10_000
"""Most fields of a type with all nested ones; generated code grows with each field."""
_ELEMENTS: Final = {NESTED, BOUNDED_STRING, BOUNDED_WSTRING, *IDS.values(), *_OTHER_NAMES}
_ARRAY: Final = 48
"""Distance of the type ids of arrays from those of their elements."""
_KINDS: Final = ("single", "array", "bounded", "sequence")


@dataclass(frozen=True)
class FieldType:
    """Type of a field: an element, and how many of them."""

    type_id: int
    capacity: int = 0
    string_capacity: int = 0
    nested: str = ""

    @property
    def element(self) -> int:
        """Type id of one element."""
        return (self.type_id - 1) % _ARRAY + 1

    @property
    def kind(self) -> Literal["single", "array", "bounded", "sequence"]:
        return _KINDS[(self.type_id - 1) // _ARRAY]

    @property
    def code(self) -> str | None:
        """Code of the module `struct` for one element; None for texts and messages."""
        return NUMBERS.get(self.element)

    @property
    def wide(self) -> bool:
        """Whether an element is a text of wide characters."""
        return self.element in (WSTRING, BOUNDED_WSTRING)

    @property
    def single(self) -> FieldType:
        """The type of one element."""
        return replace(self, type_id=self.element, capacity=0)

    def several(self, kind: str, capacity: int) -> FieldType:
        """Return the array or sequence of this element."""
        type_id = self.type_id + _ARRAY * _KINDS.index(kind)
        return replace(self, type_id=type_id, capacity=capacity)

    @property
    def text(self) -> str:
        """The type as a `.msg` file has it."""
        names = {type_id: name for name, type_id in IDS.items() if name != "char"} | _OTHER_NAMES
        if self.element == NESTED:
            package, _, name = self.nested.split("/")
            text = f"{package}/{name}"
        elif self.element in (BOUNDED_STRING, BOUNDED_WSTRING):
            text = f"{names[self.element - 4]}<={self.string_capacity}"
        else:
            text = names[self.element]
        inside = {"single": None, "array": self.capacity, "bounded": f"<={self.capacity}"}
        size = inside.get(self.kind, "")
        return text if size is None else f"{text}[{size}]"


@dataclass(frozen=True)
class Field:
    """Field of a message; ``default`` is None where the definition gives none."""

    name: str
    type: FieldType
    default: Any = None

    def as_message(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": {
                "type_id": self.type.type_id,
                "capacity": self.type.capacity,
                "string_capacity": self.type.string_capacity,
                "nested_type_name": self.type.nested,
            },
            "default_value": "" if self.default is None else str(self.default),
        }


@dataclass(frozen=True)
class Structure:
    """Name and fields of one message, service or action, without those it refers to."""

    name: str
    fields: tuple[Field, ...]
    source: str = field(default="", compare=False)
    """Text of its definition; empty for implicit types and those of `.idl` files."""

    def as_message(self) -> dict[str, Any]:
        return {"type_name": self.name, "fields": [field.as_message() for field in self.fields]}

    @property
    def named(self) -> Iterator[Field]:
        """The fields without the placeholder."""
        return (field for field in self.fields if field.name != PLACEHOLDER)

    @property
    def text(self) -> str:
        """The definition as a `.msg` file has it."""
        return self.source or "".join(f"{field.type.text} {field.name}\n" for field in self.named)


@dataclass(frozen=True)
class TypeDescription:
    """A structure and all to which it refers, sorted by name."""

    main: Structure
    referenced: tuple[Structure, ...]

    @property
    def name(self) -> str:
        return self.main.name

    @cached_property
    def structures(self) -> Mapping[str, Structure]:
        """All structures by name."""
        return {one.name: one for one in (self.main, *self.referenced)}

    @cached_property
    def hash(self) -> str:
        """RIHS01 hash; independent of default values and comments."""
        message = self.as_message()
        for one in (message["type_description"], *message["referenced_type_descriptions"]):
            for described in one["fields"]:
                del described["default_value"]
        return f"RIHS01_{hashlib.sha256(json.dumps(message).encode()).hexdigest()}"

    def as_message(self) -> dict[str, Any]:
        """Return the fields of `type_description_interfaces/msg/TypeDescription`."""
        return {
            "type_description": self.main.as_message(),
            "referenced_type_descriptions": [one.as_message() for one in self.referenced],
        }

    def of(self, name: str) -> TypeDescription:
        """Return the description of one of its structures."""
        return describe(name, self.structures.__getitem__)

    @property
    def concatenated_text(self) -> str:
        """All definitions in one text: the data of a schema `ros2msg` in MCAP files.

        Of a service or action it begins with the parts of its file.
        """
        names = [f"{self.name}{suffix}" for suffix in PARTS[self.name.split("/")[1]]]
        parts = [self.of(name) for name in names] if {*names} <= {*self.structures} else [self]
        referenced = {one.name: one for part in parts for one in part.referenced}
        texts = ["---\n".join(_ended(part.main.text) for part in parts)]
        for name in sorted(referenced):
            package, _, last = name.split("/")
            texts.append(f"MSG: {package}/{last}\n{_ended(referenced[name].text)}")
        return ("=" * 80 + "\n").join(texts)

    @classmethod
    def from_message(
        cls, message: Mapping[str, Any], sources: Mapping[str, str] | None = None
    ) -> TypeDescription:
        """Read what a publisher served; ``sources`` are its definition texts by type name.

        Its references are checked, so that a name that it lacks is an error here and not later.
        """
        found = {
            str(one["type_name"]): _structure(one, sources or {})
            for one in (message["type_description"], *message["referenced_type_descriptions"])
        }
        name = str(message["type_description"]["type_name"])

        def lookup(wanted: str) -> Structure:
            if wanted not in found:
                raise DefinitionError(f'the description of "{name}" lacks "{wanted}"')
            return found[wanted]

        return describe(name, lookup)


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _structure(entry: Mapping[str, Any], sources: Mapping[str, str]) -> Structure:
    name = str(entry["type_name"])
    check_name(name)
    fields = []
    for described in entry["fields"]:
        kind = described["type"]
        field_type = FieldType(
            int(kind["type_id"]),
            int(kind["capacity"]),
            int(kind["string_capacity"]),
            str(kind["nested_type_name"]),
        )
        is_message = field_type.element == NESTED
        if (
            not 0 < field_type.type_id <= 4 * _ARRAY
            or field_type.element not in _ELEMENTS
            or is_message != bool(field_type.nested)
        ):
            raise DefinitionError(f'"{name}" has a field of unknown type {field_type.type_id}')
        default = None
        with contextlib.suppress(DefinitionError):  # an invalid source text is ignored
            if described.get("default_value"):
                default = value_of(field_type, described["default_value"])
        fields.append(Field(str(described["name"]), field_type, default))
    return Structure(name, tuple(fields), sources.get(name, ""))


def value_of(kind: FieldType, text: str) -> Any:
    """Return the default value that is written as ``text``. Raises DefinitionError."""
    if kind.kind == "single":
        return _element_of(kind, text)
    if text[0] + text[-1] not in ("[]", "()"):
        raise DefinitionError(f"{text} is not a list", remedy="write [value, value]")
    inside = re.findall(r"""(?:[^,"']|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')+""", text[1:-1])
    values = tuple(_element_of(kind, one.strip()) for one in inside if one.strip())
    if kind.capacity and (
        len(values) != kind.capacity if kind.kind == "array" else len(values) > kind.capacity
    ):
        raise DefinitionError(f"{text} has {len(values)} values, not {kind.capacity}")
    return values


def _element_of(kind: FieldType, text: str) -> Any:
    code = kind.code
    if code is None and not kind.nested:
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            text = re.sub(r"\\(['\"])", r"\1", text[1:-1])
        return text
    try:
        if code == "?":
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        value = float(text) if code in ("f", "d") else int(text, 0)
        struct.pack(f"={code}", value)
    except (KeyError, ValueError, OverflowError, struct.error):
        raise DefinitionError(f"{text} is not a default value of this type") from None
    return value


def describe(name: str, lookup: Callable[[str], Structure]) -> TypeDescription:
    """Return the description of ``name`` with all structures that ``lookup`` finds for it."""
    found: dict[str, Structure] = {}
    sizes: dict[str, int] = {}

    def visit(wanted: str, above: tuple[str, ...]) -> int:
        """Return how many fields a structure has with those of the structures within it."""
        if wanted in above:
            raise DefinitionError(f'"{wanted}" contains itself')
        if wanted not in sizes:
            found[wanted] = one = lookup(wanted)
            inner = [visit(field.type.nested, (*above, wanted)) for field in one.fields
                     if field.type.nested]  # fmt: skip
            sizes[wanted] = len(one.fields) + sum(inner)
            if sizes[wanted] > _MAX_FIELDS:
                raise DefinitionError(f'"{wanted}" has more than {_MAX_FIELDS} fields')
        return sizes[wanted]

    visit(name, ())
    main = found.pop(name)
    return TypeDescription(main, tuple(found[key] for key in sorted(found)))


def check_name(name: str) -> str:
    """Return a full name, `package/msg/Name`, if it is one."""
    parts = name.split("/")
    if (
        len(parts) != 3
        or parts[1] not in ("msg", "srv", "action")
        or not all(part.isascii() and part.isidentifier() for part in parts)
    ):
        raise DefinitionError(
            f'"{name}" is not the name of a ROS interface', remedy="write package/msg/Name"
        )
    return name


def full_name(name: str, kind: str) -> str:
    """Return `package/msg/Name` for `package/Name` or itself; ``kind`` is msg, srv or action."""
    parts = name.split("/")
    return check_name(f"{parts[0]}/{kind}/{parts[1]}" if len(parts) == 2 else name)


def dds_name(name: str) -> str:
    """Return the name on the wire: `package::msg::dds_::Name_`."""
    package, kind, last = name.split("/")
    return f"{package}::{kind}::dds_::{last}_"


def structure(name: str, fields: Iterable[Field], source: str = "") -> Structure:
    """Return a structure, with the placeholder if it has no fields."""
    held = tuple(fields) or (Field(PLACEHOLDER, FieldType(IDS["uint8"])),)
    return Structure(name, held, source)


PARTS: Final[Mapping[str, Sequence[str]]] = {
    "msg": [""],
    "srv": ["_Request", "_Response"],
    "action": ["_Goal", "_Result", "_Feedback"],
}
"""Suffixes of the structures that a file of each kind defines."""


def with_implicit(name: str, parts: Sequence[Structure]) -> list[Structure]:
    """Return all structures of ``name``, itself first; ``parts`` are those of its file."""
    match parts:
        case [message]:
            return [message]
        case [request, response]:
            return service_structures(name, request, response)
        case _:
            return action_structures(name, *parts)


def _nested(name: str) -> FieldType:
    return FieldType(NESTED, nested=name)


def _made(name: str, **types: FieldType) -> Structure:
    """Return a structure of fields without default values."""
    return Structure(name, tuple(Field(*field) for field in types.items()))


def service_structures(name: str, request: Structure, response: Structure) -> list[Structure]:
    """Return the structures of the service ``name``: itself, request, response and event."""
    event = _made(
        f"{name}_Event",
        info=_nested("service_msgs/msg/ServiceEventInfo"),
        request=_nested(request.name).several("bounded", 1),
        response=_nested(response.name).several("bounded", 1),
    )
    service = _made(
        name,
        request_message=_nested(request.name),
        response_message=_nested(response.name),
        event_message=_nested(event.name),
    )
    return [service, request, response, event]


def action_structures(
    name: str, goal: Structure, result: Structure, feedback: Structure
) -> list[Structure]:
    """Return all structures of the action ``name``: itself and the implicit ones."""
    goal_id = _nested("unique_identifier_msgs/msg/UUID")
    stamp = _nested("builtin_interfaces/msg/Time")
    send, get = f"{name}_SendGoal", f"{name}_GetResult"
    send_goal = service_structures(
        send,
        _made(f"{send}_Request", goal_id=goal_id, goal=_nested(goal.name)),
        _made(f"{send}_Response", accepted=FieldType(BOOL), stamp=stamp),
    )
    get_result = service_structures(
        get,
        _made(f"{get}_Request", goal_id=goal_id),
        _made(f"{get}_Response", status=FieldType(IDS["int8"]), result=_nested(result.name)),
    )
    message = _made(f"{name}_FeedbackMessage", goal_id=goal_id, feedback=_nested(feedback.name))
    action = _made(
        name,
        goal=_nested(goal.name),
        result=_nested(result.name),
        feedback=_nested(feedback.name),
        send_goal_service=_nested(send),
        get_result_service=_nested(get),
        feedback_message=_nested(message.name),
    )
    return [action, goal, result, feedback, *send_goal, *get_result, message]
