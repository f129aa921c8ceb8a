"""Messages of a recording: Arrow arrays as encapsulated IPC record batches, and back; pure.

A batch has one column, ``data``. Its custom metadata has the sender's metadata, as the bytes that
were sent, notes of the events before the message (`dora_node_api.backends.event_notes`), and in
merged files its times by the clock of its machine. A dictionary-encoded array has its dictionary
batches before the record batch, so each message can be decoded with its schema alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

ENCODING = "arrow"
"""Encoding of schemas and of messages."""
COLUMN = "data"
METADATA_KEY = b"dora.metadata"
NOTES_KEY = b"dora.events"
OWN_TIMES_KEY = b"dora.own_times"
"""Key of `publish_time` and the times in the metadata, as they were before correction."""


@dataclass(frozen=True, slots=True)
class RecordedMessage:
    """A message of an output, as it is in a file."""

    topic: str
    """``node/output``."""
    type_name: str
    schema: bytes
    """Serialized Arrow schema."""
    log_time: int
    """Nanoseconds of a clock that never steps back while a recorder runs."""
    publish_time: int
    """The sender's CLOCK_REALTIME."""
    sequence: int
    data: bytes
    """Arrow record batch, see `encode`."""


class MessageEncoder:
    """Arrays as messages of a file; serializes the schema of each Arrow type once."""

    def __init__(self) -> None:
        self._schemas: dict[pa.DataType, tuple[pa.Schema, bytes, str]] = {}

    def message(
        self,
        topic: str,
        array: pa.Array,
        metadata: bytes,
        times: tuple[int, int],
        sequence: int,
        notes: bytes = b"",
    ) -> RecordedMessage:
        """Return an array as a message; ``times``: log and publish time in nanoseconds."""
        if array.type not in self._schemas:
            schema = pa.schema([pa.field(COLUMN, array.type)])
            serialized = schema.serialize().to_pybytes()
            self._schemas[array.type] = schema, serialized, str(array.type)[:200]
        schema, serialized, type_name = self._schemas[array.type]
        data = encode(array, metadata, schema, len(serialized), {NOTES_KEY: notes})
        return RecordedMessage(topic, type_name, serialized, *times, sequence, data)


def encode(
    array: pa.Array,
    metadata: bytes,
    schema: pa.Schema,
    schema_size: int,
    further: Mapping[bytes, bytes] = MappingProxyType({}),
) -> bytes:
    """Return an IPC message; ``schema_size``: bytes of the serialized schema.

    ``further``: additional custom metadata, such as notes and own times, by key.
    """
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, schema)
    batch = pa.record_batch([array], schema=schema)
    custom = {key: value for key, value in {METADATA_KEY: metadata, **further}.items() if value}
    writer.write_batch(batch, custom or None)
    # The stream stays open, because a message must not include an end-of-stream mark.
    return memoryview(sink.getvalue())[schema_size:].tobytes()


def decode(schema: bytes, message: bytes) -> tuple[pa.Array, bytes]:
    """Return the array and the encoded metadata. Raises ValueError for invalid bytes."""
    array, custom = decode_all(schema, message)
    return array, custom.get(METADATA_KEY, b"")


def decode_all(schema: bytes, message: bytes) -> tuple[pa.Array, dict[bytes, bytes]]:
    """Return the array and all custom metadata. Raises ValueError for invalid bytes."""
    try:
        batch, custom = pa.ipc.open_stream(
            pa.py_buffer(schema + message)
        ).read_next_batch_with_custom_metadata()
    except (pa.ArrowException, StopIteration, OSError) as error:
        raise ValueError(f"not an Arrow record batch: {error}") from error
    return batch.column(0), {} if custom is None else dict(custom)
