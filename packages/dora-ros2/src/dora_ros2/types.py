"""ROS 2 types by name: `Types` finds definitions; each type encodes and decodes its messages."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from dora_ros2.cdr.generator import View, arrow_type, with_views
from dora_ros2.cdr.reader import LARGE, Reader, generate_reader
from dora_ros2.cdr.writer import (
    REFUSALS,
    Writer,
    as_dictionary,
    generate_writer,
    problem_of,
    without_nulls,
)
from dora_ros2.definitions import idl, msg
from dora_ros2.definitions.description import (
    Structure,
    TypeDescription,
    check_name,
    dds_name,
    describe,
    full_name,
)
from dora_ros2.errors import DefinitionError, MalformedMessage

Payload: TypeAlias = bytes | bytearray | memoryview | pa.Buffer
"""A message in CDR with its header of 4 bytes."""

_HEADER = b"\0\1\0\0"
SHIPPED = Path(__file__).parent / "interfaces"
"""Definitions of common interfaces that this package brings."""

_IMPLICIT = re.compile(
    r"_(Request|Response|Event|Goal|Result|Feedback|FeedbackMessage"
    r"|(SendGoal|GetResult)(_(Request|Response|Event))?)$"
)
_SECTION = re.compile(r"^={80}\n(MSG|SRV|ACTION|IDL): (\S+)(?:\n|\Z)", re.MULTILINE)
_MODULE = re.compile(r"^\s*module\s+\w+\s*\{", re.MULTILINE)


@dataclass(frozen=True)
class _InterfaceType:
    """Base of messages, services and actions."""

    description: TypeDescription

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def dds_name(self) -> str:
        """Name on the wire, `std_msgs::msg::dds_::String_`."""
        return dds_name(self.name)

    @property
    def hash(self) -> str:
        return self.description.hash

    def part(self, suffix: str) -> MessageType:
        """Return an implicit type: ``Request`` of ``package/srv/Name`` is its `Name_Request`."""
        return MessageType(self.description.of(f"{self.name}_{suffix}"))


@dataclass(frozen=True)
class MessageType(_InterfaceType):
    """A message type; readers and writers are generated when they are first needed."""

    @property
    def ros2msg_text(self) -> str:
        """The definition with all it refers to: the data of a schema `ros2msg` in MCAP files."""
        return self.description.concatenated_text

    @cached_property
    def arrow_type(self) -> pa.StructType:
        return arrow_type(self.description)

    @cached_property
    def _reader(self) -> Callable[[str, bool], Reader]:
        return cache(partial(generate_reader, self.description))

    @cached_property
    def _writer(self) -> Writer:
        return generate_writer(self.description)

    def decode(self, payload: Payload) -> pa.StructArray:
        """Return the message as a struct array of one row; long lists share its memory."""
        held = memoryview(payload).cast("B")
        match held[:2].tobytes():
            case b"\0\1":
                order = "<"
            case b"\0\0":
                order = ">"
            case other:
                raise MalformedMessage(
                    f"{self.name}: {other.hex() or '(empty)'} is not a header of plain CDR"
                )
        if len(held) < 4:
            raise MalformedMessage(f"{self.name}: the payload ends within its header")
        views: list[View] = []
        try:
            read = self._reader(order, len(held) > LARGE)
            array = pa.array([read(held[4:], views)], self.arrow_type)
            if views:
                array = with_views(array, views, pa.py_buffer(payload).slice(4))
        except MalformedMessage as error:
            raise MalformedMessage(f"{self.name}: {error}") from None
        except (UnicodeDecodeError, pa.ArrowInvalid) as error:
            raise MalformedMessage(f"{self.name}: a string is not valid: {error}") from None
        return array

    def encode(self, value: pa.Array | pa.StructScalar | dict[str, Any]) -> bytearray:
        """Return the message in CDR.

        Absent fields have their defaults, and null ones in the messages of a list.
        """
        try:
            fields = as_dictionary(value)
            try:
                return self._written(fields)
            except REFUSALS:
                fields = without_nulls(fields)
                return self._written(fields)
        except MalformedMessage as error:
            raise MalformedMessage(f"{self.name}: {error}") from None
        except REFUSALS as error:
            problem = problem_of(self.description, fields) or str(error)
            raise MalformedMessage(f"{self.name}: {problem}") from error

    def _written(self, fields: Mapping[str, Any]) -> bytearray:
        out = bytearray(_HEADER)
        self._writer(fields, out)
        return out


@dataclass(frozen=True)
class ServiceType(_InterfaceType):
    """A service type and its messages."""

    @cached_property
    def request(self) -> MessageType:
        return self.part("Request")

    @cached_property
    def response(self) -> MessageType:
        return self.part("Response")


@dataclass(frozen=True)
class ActionType(_InterfaceType):
    """An action type, its messages and its services."""

    @cached_property
    def feedback_message(self) -> MessageType:
        return self.part("FeedbackMessage")

    @cached_property
    def send_goal(self) -> ServiceType:
        return ServiceType(self.part("SendGoal").description)

    @cached_property
    def get_result(self) -> ServiceType:
        return ServiceType(self.part("GetResult").description)

    @cached_property
    def cancel_goal(self) -> ServiceType:
        """`action_msgs/srv/CancelGoal`, of all actions."""
        return Types().service("action_msgs/srv/CancelGoal")

    @cached_property
    def status(self) -> MessageType:
        """`action_msgs/msg/GoalStatusArray`, of all actions."""
        return Types().message("action_msgs/msg/GoalStatusArray")


class Types:
    """Types by name, from folders of definitions and from what is installed.

    A name is `package/msg/Name` or `package/Name`. ``folders`` come first; each is a folder of
    packages, the folder of one package (with `package.xml`), or has folders `msg`, `srv`, `action`.
    """

    def __init__(self, folders: Iterable[Path | str] = ()) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._shares = [
            *(Path(entry) for entry in os.environ.get("AMENT_PREFIX_PATH", "").split(":") if entry),
            Path(sys.prefix),
        ]
        self._known: dict[str, Structure] = {}
        """Files are read when they are needed, the first one found counts."""
        self.description = cache(lambda name: describe(name, self.structure))
        """Returns the description of any full name, also of services and actions."""
        self._message = cache(lambda name: MessageType(self.description(name)))

    def message(self, name: str) -> MessageType:
        """Return a message type, or an implicit one: `package/srv/Name_Request`."""
        return self._message(full_name(name, "msg"))

    def service(self, name: str) -> ServiceType:
        return ServiceType(self.description(full_name(name, "srv")))

    def action(self, name: str) -> ActionType:
        return ActionType(self.description(full_name(name, "action")))

    def message_of_schema(self, name: str, text: str) -> MessageType:
        """Return a message type by the schema in a recording, of encoding `ros2msg` or `ros2idl`.

        ``text`` is the definition of ``name`` and, in sections, those to which it refers; what it
        lacks is looked up as usual.
        """
        name = full_name(name, "msg")
        first, *rest = _SECTION.split(text.replace("\r\n", "\n"))
        sections = list(zip(rest[::3], rest[1::3], rest[2::3], strict=True))
        is_idl = bool(_MODULE.search(first))
        owner = name if name.split("/")[1] == "msg" else _IMPLICIT.sub("", name)
        is_whole = bool(first.strip()) or not sections
        is_flat = owner != name and is_whole and not is_idl and not msg.SEPARATOR.search(first)
        if is_whole:
            sections.insert(0, ("IDL" if is_idl else "MSG", name if is_flat else owner, first))
        # A flat text has the parts of a service or action as messages: `MSG: pkg/Add_Request`.
        package, folder, last = owner.split("/")
        own, flat = f"{package}/{folder}/{last}_", f"{package}/msg/{last}_"
        found: dict[str, Structure] = {}
        for kind, described, body in sections:
            parse = idl.parse if kind == "IDL" else msg.parse
            full = full_name(described, kind.lower())
            if is_flat:
                full, body = full.replace(own, flat), body.replace(own, flat)
            for one in parse(full, body, file=f"schema of {name}"):
                whole = _renamed(one, flat, own) if is_flat else one
                found.setdefault(whole.name, whole)
        return MessageType(
            describe(name, lambda wanted: found.get(wanted) or self.structure(wanted))
        )

    def structure(self, name: str) -> Structure:
        """Return a structure by its full name; of services and actions also the implicit ones."""
        if name not in self._known:
            owner = check_name(name)
            if owner.split("/")[1] != "msg":
                owner = _IMPLICIT.sub("", owner)
            self._read(owner)
        found = self._known.get(name)
        if found is None:
            raise self._not_found(name)
        return found

    def _read(self, name: str) -> None:
        _, kind, last = name.split("/")
        for folder in self._places(name):
            for suffix, parse in ((f".{kind}", msg.parse), (".idl", idl.parse)):
                path = folder / f"{last}{suffix}"
                try:
                    text = path.read_text(encoding="utf-8")
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except (OSError, UnicodeDecodeError) as error:
                    raise DefinitionError(f"cannot be read: {error}", file=path) from error
                for one in parse(name, text, file=str(path)):
                    self._known.setdefault(one.name, one)
                return

    def _places(self, name: str) -> Iterator[Path]:
        """Yield the folders that may contain the file of ``name``."""
        package, kind, _ = name.split("/")
        for folder in self._folders:
            yield folder / package / kind
            yield folder / "share" / package / kind
            if _package_of(folder) == package:
                yield folder / kind
        for prefix in self._shares:
            yield prefix / "share" / package / kind
        yield SHIPPED / package / kind
        # a folder `msg` beside a dataflow that is not in a ROS package
        for folder in self._folders:
            if _package_of(folder) is None:
                yield folder / kind

    def _not_found(self, name: str) -> DefinitionError:
        package, kind, last = name.split("/")
        names = {
            path.stem
            for folder in self._places(name)
            if folder.is_dir()
            for path in folder.iterdir()
            if path.suffix in (f".{kind}", ".idl")
        }
        similar = difflib.get_close_matches(last, sorted(names), n=1)
        if similar:
            remedy = f'did you mean "{package}/{kind}/{similar[0]}"?'
        else:
            wheel = f"ros-{package.replace('_', '-')}"
            remedy = (
                f"put {package}/{kind}/{last}.{kind} into a folder of definitions, "
                f"source a ROS installation that has it, or install the wheel {wheel} if it exists"
            )
        return DefinitionError(f'found no definition of "{name}"', remedy=remedy)


def _renamed(one: Structure, old: str, new: str) -> Structure:
    """Return a structure with another beginning of its name and of those to which it refers."""
    fields = tuple(
        replace(field, type=replace(field.type, nested=field.type.nested.replace(old, new)))
        for field in one.fields
    )
    return replace(one, name=one.name.replace(old, new), fields=fields)


def _package_of(folder: Path) -> str | None:
    """Return the name in the ``package.xml`` of a folder; None without this file."""
    try:
        text = (folder / "package.xml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r"<name>\s*([\w-]+)\s*</name>", text)
    return match[1] if match else None
