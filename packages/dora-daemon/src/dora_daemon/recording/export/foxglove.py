"""Exports recordings to MCAP with Foxglove's protobuf schemas, which viewers display.

Messages without a display become JSON, so that nothing is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from mcap.writer import CompressionType, Writer

from dora_daemon import __version__
from dora_daemon.recording.export.errors import CannotExport, missing_extra
from dora_daemon.recording.export.visuals import DecodedMessage, VisualDecoder
from dora_daemon.recording.message import RecordedMessage
from dora_node_api.data.foxglove_fields import foxglove_fields
from dora_node_api.data.visual_kinds import DISPLAYS
from dora_node_api.data.visual_values import read_visual

JSON_SCHEMA = "dora.Message"
MAX_ELEMENTS = 4096
"""Elements of an array in JSON."""
CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Exported:
    """Messages of one output in the file."""

    schema: str
    messages: int = 0
    refused: int = 0
    """Messages that did not fit the schema and are left out."""
    reason: str = ""
    """Why the first of them was."""


@dataclass(slots=True)
class FoxgloveExport:
    """One file; call :meth:`write` once."""

    target: Path
    decoder: VisualDecoder
    outputs: dict[tuple[str, str], Exported] = field(default_factory=dict)
    """By output and schema."""

    def write(self, messages: Iterable[RecordedMessage]) -> None:
        """Raises CannotExport and OSError."""
        types = _MessageTypes()
        if self.target.exists():
            raise CannotExport(f"{self.target} exists; choose another file with -o")
        unfinished = self.target.with_name(f".{self.target.name}.new")
        try:
            with unfinished.open("wb") as file:
                writer = Writer(file, CHUNK_BYTES, CompressionType.ZSTD)
                writer.start("", f"dora {__version__}")
                channels = _Channels(writer, types)
                for message in messages:
                    self._add(channels, message)
                writer.finish()
            unfinished.rename(self.target)
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()

    def _add(self, channels: _Channels, message: RecordedMessage) -> None:
        try:
            decoded = self.decoder.decode(message)
        except ValueError as error:
            self._refuse(message.topic, JSON_SCHEMA, error)
            return
        schema = JSON_SCHEMA if decoded.kind is None else DISPLAYS[decoded.kind].foxglove
        try:
            data = _encoded(decoded, schema, channels.types)
        except ValueError as error:
            self._refuse(message.topic, schema, error)
            return
        channels.add(message, schema, data)
        self._count(message.topic, schema).messages += 1

    def _count(self, topic: str, schema: str) -> Exported:
        return self.outputs.setdefault((topic, schema), Exported(schema))

    def _refuse(self, topic: str, schema: str, error: ValueError) -> None:
        count = self._count(topic, schema)
        count.refused += 1
        count.reason = count.reason or str(error)


def _encoded(decoded: DecodedMessage, schema: str, types: _MessageTypes) -> bytes:
    """Raises ValueError if the message does not fit."""
    if decoded.kind is None:
        return _as_json(decoded)
    visual = read_visual(decoded.kind, decoded.array, decoded.metadata, decoded.declared)
    frame = str(decoded.metadata.get("frame_id", ""))
    fields = foxglove_fields(decoded.kind, visual, decoded.message.publish_time, frame)
    serialized: bytes = types[schema](**fields).SerializeToString()
    return serialized


def _as_json(decoded: DecodedMessage) -> bytes:
    values = {
        "data": decoded.array[:MAX_ELEMENTS].to_pylist(),
        "metadata": dict(decoded.metadata),
    }
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


class _Channels:
    """Channels of a file by output and schema."""

    def __init__(self, writer: Writer, types: _MessageTypes) -> None:
        self.types = types
        self._writer = writer
        self._schemas: dict[str, int] = {}
        self._channels: dict[tuple[str, str], int] = {}

    def add(self, message: RecordedMessage, schema: str, data: bytes) -> None:
        key = message.topic, schema
        if key not in self._channels:
            encoding = "json" if schema == JSON_SCHEMA else "protobuf"
            shared = [one for one in self._channels if one[0] == message.topic]
            topic = f"/{message.topic}" + (f"/{schema.rpartition('.')[2]}" if shared else "")
            self._channels[key] = self._writer.register_channel(
                topic, encoding, self._schema(schema)
            )
        self._writer.add_message(
            self._channels[key], message.log_time, data, message.publish_time, message.sequence
        )

    def _schema(self, name: str) -> int:
        if name not in self._schemas:
            if name == JSON_SCHEMA:
                encoding, data = "jsonschema", b'{"type":"object"}'
            else:
                encoding, data = "protobuf", self.types.descriptors(name)
            self._schemas[name] = self._writer.register_schema(name, encoding, data)
        return self._schemas[name]


class _MessageTypes:
    """Classes of protobuf messages by schema."""

    def __init__(self) -> None:
        """Raises CannotExport if the libraries are not installed."""
        try:
            import foxglove_schemas_protobuf  # noqa: F401
            from google.protobuf import descriptor_pb2  # noqa: F401
        except ImportError as error:
            raise missing_extra("foxglove", error) from error
        self._types: dict[str, Any] = {}

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
