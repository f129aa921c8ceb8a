"""Messages of recordings: arrays and metadata survive, and bytes are stable."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dora_recordings.arrow_messages import MessageEncoder, RecordedMessage, decode

ARRAYS = {
    "numbers": pa.array([1, 2, 3]),
    "slice": pa.array(range(100), pa.uint8())[3:50],
    "text with nulls": pa.array(["a", None, "äö"]),
    "structs": pa.array([{"x": 1.5, "y": [1, 2]}, None]),
    "dictionary": pa.array(["a", "b", "a"]).dictionary_encode(),
    "nulls": pa.nulls(3),
    "empty": pa.array([], pa.float32()),
}


def encoded(array: pa.Array, metadata: bytes = b"") -> RecordedMessage:
    return MessageEncoder().message("a/b", array, metadata, (0, 0), 1)


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("metadata", [b"", b'{"n":1,"t":{"t":5}}'])
def test_arrays_and_metadata_survive_byte_for_byte(name: str, metadata: bytes) -> None:
    array = ARRAYS[name]
    message = encoded(array, metadata)
    decoded, custom = decode(message.schema, message.data)
    assert decoded.equals(array)
    assert decoded.type == array.type
    assert custom == metadata
    assert encoded(decoded, custom) == message


def test_a_message_is_an_encapsulated_record_batch() -> None:
    array = ARRAYS["numbers"]
    message = encoded(array)
    schema = pa.ipc.read_schema(pa.py_buffer(message.schema))
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(message.data), schema)
    assert batch.column("data").equals(array)
    assert schema == pa.schema({"data": array.type})


def test_other_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="not an Arrow record batch"):
        decode(b"", b"something else")
