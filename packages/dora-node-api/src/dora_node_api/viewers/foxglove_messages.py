"""Messages of Foxglove: schemas and bytes. Needs foxglove-schemas-protobuf."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pyarrow as pa

from dora_node_api.data.foxglove_fields import foxglove_fields
from dora_node_api.data.python_values import python_values
from dora_node_api.data.visual_kinds import DISPLAYS, VisualKind
from dora_node_api.data.visual_values import Visual

JSON_SCHEMA = "dora.Message"
"""Schema of messages without a display."""
JSON_SCHEMA_TEXT = b'{"type":"object"}'
MAX_ELEMENTS = 4096
"""Elements of an array in JSON."""


def schema_name(kind: VisualKind | None) -> str:
    return JSON_SCHEMA if kind is None else DISPLAYS[kind].foxglove


def json_message(array: pa.Array, metadata: Mapping[str, Any]) -> bytes:
    """Return a message without a display. Raises ValueError."""
    values = {"data": python_values(array[:MAX_ELEMENTS]), "metadata": dict(metadata)}
    return json.dumps(_json_value(values), allow_nan=False).encode()


def _json_value(value: object) -> object:
    """Return a value of JSON, which has no NaN, infinity, bytes and times."""
    match value:
        case dict():
            return {str(key): _json_value(one) for key, one in value.items()}
        case list() | tuple():
            return [_json_value(one) for one in value]
        case bytes():
            return list(value)
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


class MessageTypes:
    """Classes of protobuf messages by schema."""

    def __init__(self) -> None:
        """Raises ImportError if the libraries are not installed."""
        import foxglove_schemas_protobuf  # noqa: F401
        from google.protobuf import descriptor_pb2  # noqa: F401

        self._types: dict[str, Any] = {}

    def encode(self, kind: VisualKind, visual: Visual, nanoseconds: int, frame: str) -> bytes:
        """Return a message of the kind's schema; the arguments are those of `foxglove_fields`."""
        fields = foxglove_fields(kind, visual, nanoseconds, frame)
        serialized: bytes = self[schema_name(kind)](**fields).SerializeToString()
        return serialized

    def __getitem__(self, schema: str) -> Any:
        if schema not in self._types:
            package, _, name = schema.rpartition(".")
            if package == "dora":
                self._types[schema] = _numbers_type()
            else:
                module = import_module(f"foxglove_schemas_protobuf.{name}_pb2")
                self._types[schema] = getattr(module, name)
        return self._types[schema]

    def descriptors(self, schema: str) -> bytes:
        """Return the FileDescriptorSet of a schema, dependencies first."""
        from google.protobuf.descriptor_pb2 import FileDescriptorSet

        files: dict[str, Any] = {}

        def add(file: Any) -> None:
            for dependency in file.dependencies:
                add(dependency)
            files[file.name] = file

        add(self[schema].DESCRIPTOR.file)
        found = FileDescriptorSet()
        for file in files.values():
            file.CopyToProto(found.file.add())
        serialized: bytes = found.SerializeToString()
        return serialized


def _numbers_type() -> Any:
    """Return the class of ``dora.Numbers``: Foxglove has no schema for numbers."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name="dora/Numbers.proto",
        package="dora",
        syntax="proto3",
        dependency=["google/protobuf/timestamp.proto"],
    )
    message = file.message_type.add(name="Numbers")
    kinds = descriptor_pb2.FieldDescriptorProto
    message.field.add(
        name="timestamp",
        number=1,
        label=kinds.LABEL_OPTIONAL,
        type=kinds.TYPE_MESSAGE,
        type_name=".google.protobuf.Timestamp",
    )
    message.field.add(name="values", number=2, label=kinds.LABEL_REPEATED, type=kinds.TYPE_DOUBLE)
    message.field.add(name="names", number=3, label=kinds.LABEL_REPEATED, type=kinds.TYPE_STRING)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("dora.Numbers"))
