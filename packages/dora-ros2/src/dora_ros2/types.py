"""ROS 2 types by name: `Types` finds definitions; each type encodes and decodes its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from dora_ros2.cdr.generator import View, arrow_type, with_views
from dora_ros2.cdr.reader import LARGE, Reader, generate_reader
from dora_ros2.cdr.writer import REFUSALS, Writer, as_dictionary, generate_writer, problem_of
from dora_ros2.definitions.description import (
    TypeDescription,
    dds_name,
    full_name,
)
from dora_ros2.definitions.sources import Definitions
from dora_ros2.errors import MalformedMessage

__all__ = ["ActionType", "MessageType", "ServiceType", "TypeDescription", "Types"]

Payload: TypeAlias = bytes | bytearray | memoryview | pa.Buffer
"""A message in CDR with its header of 4 bytes."""

_HEADER = b"\0\1\0\0"


@dataclass(frozen=True)
class _InterfaceType:
    """What messages, services and actions share."""

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
                    f"{self.name}: the header {other.hex() or '(empty)'} is not that of plain CDR"
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
        """Return the message in CDR; absent fields have their defaults."""
        out = bytearray(_HEADER)
        try:
            fields = as_dictionary(value)
            self._writer(fields, out)
        except MalformedMessage as error:
            raise MalformedMessage(f"{self.name}: {error}") from None
        except REFUSALS as error:
            problem = problem_of(self.description, fields) or str(error)
            raise MalformedMessage(f"{self.name}: {problem}") from error
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
        self._definitions = Definitions(folders)
        self._described = cache(self._definitions.describe)
        self._message = cache(lambda name: MessageType(self._described(name)))

    def description(self, name: str) -> TypeDescription:
        """Return the description of any full name, also of services and actions."""
        return self._described(name)

    def message(self, name: str) -> MessageType:
        """Return a message type, or an implicit one: `package/srv/Name_Request`."""
        return self._message(full_name(name, "msg"))

    def message_of_schema(self, name: str, text: str) -> MessageType:
        """Return a message type as the schema `ros2msg` or `ros2idl` of a recording defines it."""
        return MessageType(self._definitions.describe_schema(full_name(name, "msg"), text))

    def service(self, name: str) -> ServiceType:
        return ServiceType(self._described(full_name(name, "srv")))

    def action(self, name: str) -> ActionType:
        return ActionType(self._described(full_name(name, "action")))
