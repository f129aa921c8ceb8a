"""Messages of a recording: Arrow arrays as encapsulated IPC record batches, and back; pure.

A batch has one column, ``data``. Its custom metadata has the sender's metadata, as the bytes that
were sent, and notes of the events before the message (`dora_node_api.backends.event_notes`). A
dictionary-encoded array has its dictionary batches before the record batch, so each message can be
read with nothing but its schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

ENCODING = "arrow"
"""Encoding of schemas and of messages."""
COLUMN = "data"
METADATA_KEY = b"dora.metadata"
NOTES_KEY = b"dora.events"


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


def schema_of(array: pa.Array) -> pa.Schema:
    """Return the schema of messages that carry arrays of this type."""
    return pa.schema([pa.field(COLUMN, array.type)])


def encode(
    array: pa.Array, metadata: bytes, schema: pa.Schema, schema_size: int, notes: bytes = b""
) -> bytes:
    """Return an IPC message; ``schema_size``: bytes of the serialized schema."""
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, schema)
    batch = pa.record_batch([array], schema=schema)
    custom = {key: value for key, value in ((METADATA_KEY, metadata), (NOTES_KEY, notes)) if value}
    writer.write_batch(batch, custom or None)
    # Not closed: the end-of-stream mark is not part of a message.
    return memoryview(sink.getvalue())[schema_size:].tobytes()


def decode(schema: bytes, message: bytes) -> tuple[pa.Array, bytes]:
    """Return the array and the encoded metadata. Raises ValueError for invalid bytes."""
    return decode_with_notes(schema, message)[:2]


def decode_with_notes(schema: bytes, message: bytes) -> tuple[pa.Array, bytes, bytes]:
    """Return the array, the encoded metadata and the notes. Raises ValueError for invalid bytes."""
    try:
        batch, custom = pa.ipc.open_stream(
            pa.py_buffer(schema + message)
        ).read_next_batch_with_custom_metadata()
    except (pa.ArrowException, StopIteration, OSError) as error:
        raise ValueError(f"not an Arrow record batch: {error}") from error
    values: Any = {} if custom is None else custom
    return (
        batch.column(0),
        bytes(values.get(METADATA_KEY) or b""),
        bytes(values.get(NOTES_KEY) or b""),
    )
