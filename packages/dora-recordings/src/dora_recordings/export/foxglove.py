"""Exports recordings to MCAP with Foxglove's protobuf schemas, which viewers display.

Messages without a display become JSON. Messages that do not fit are counted and left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mcap.writer import CompressionType, Writer

from dora_node_api.data.visual_values import read_visual
from dora_recordings import __version__
from dora_recordings.arrow_messages import RecordedMessage
from dora_recordings.conversion import Converted, missing_extra, unfinished
from dora_recordings.export.visuals import DecodedMessage, VisualDecoder
from dora_recordings.foxglove_messages import (
    MessageTypes,
    json_message,
    schema_name,
)

CHUNK_BYTES = 1 << 20
"""Uncompressed bytes of a chunk."""
UNDECODABLE = "(invalid)"
"""Counted in place of a schema for messages that are not valid Arrow."""


@dataclass(slots=True)
class FoxgloveExport:
    """One file; call :meth:`write` once."""

    target: Path
    decoder: VisualDecoder
    outputs: dict[tuple[str, str], Converted] = field(default_factory=dict)
    """Channels by output and schema."""

    def write(self, messages: Iterable[RecordedMessage]) -> None:
        """Write the file. Raises CannotConvert and OSError."""
        try:
            types = MessageTypes()
        except ImportError as error:
            raise missing_extra("foxglove", error) from error
        with unfinished(self.target) as path, path.open("wb") as file:
            writer = Writer(file, CHUNK_BYTES, CompressionType.ZSTD)
            writer.start("", f"dora {__version__}")
            channels = _Channels(writer, types)
            for message in messages:
                self._add(channels, message)
            writer.finish()

    def _add(self, channels: _Channels, message: RecordedMessage) -> None:
        try:
            decoded = self.decoder.decode(message)
        except ValueError as error:
            self._count(message.topic, UNDECODABLE).refuse(error)
            return
        schema = schema_name(decoded.kind)
        try:
            data = _encoded(decoded, channels.types)
        except ValueError as error:
            self._count(message.topic, schema).refuse(error)
            return
        channels.add(message, schema, data)
        self._count(message.topic, schema).messages += 1

    def _count(self, topic: str, schema: str) -> Converted:
        return self.outputs.setdefault((topic, schema), Converted(schema))


def _encoded(decoded: DecodedMessage, types: MessageTypes) -> bytes:
    """Return the bytes of a message. Raises ValueError if it does not fit."""
    if decoded.kind is None:
        return json_message(decoded.array, decoded.metadata)
    visual = read_visual(decoded.kind, decoded.array, decoded.metadata, decoded.declared)
    frame = str(decoded.metadata.get("frame_id", ""))
    return types.encode(decoded.kind, visual, decoded.message.publish_time, frame)


class _Channels:
    """Channels of a file by output and schema."""

    def __init__(self, writer: Writer, types: MessageTypes) -> None:
        self.types = types
        self._writer = writer
        self._schemas: dict[str, int] = {}
        self._channels: dict[tuple[str, str], int] = {}

    def add(self, message: RecordedMessage, schema: str, data: bytes) -> None:
        key = message.topic, schema
        if key not in self._channels:
            shared = [one for one in self._channels if one[0] == message.topic]
            topic = f"/{message.topic}" + (f"/{schema.rpartition('.')[2]}" if shared else "")
            encoding, schema_encoding, description = self.types.described(schema)
            if schema not in self._schemas:
                self._schemas[schema] = self._writer.register_schema(
                    schema, schema_encoding, description
                )
            number = self._schemas[schema]
            self._channels[key] = self._writer.register_channel(topic, encoding, number)
        self._writer.add_message(
            self._channels[key], message.log_time, data, message.publish_time, message.sequence
        )
