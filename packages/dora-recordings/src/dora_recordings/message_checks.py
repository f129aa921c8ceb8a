"""Checksums of the messages of a chunk, to read a damaged chunk up to the damage; pure.

The checksums of a chunk are in a record of their own behind it, with an opcode that MCAP leaves to
applications: other programs skip it.
"""

from __future__ import annotations

import array
import struct
import sys
import zlib
from collections.abc import Iterable
from typing import Final

from dora_recordings.arrow_messages import RecordedMessage

OPCODE: Final = 0x80
"""Opcode of the record with checksums; other programs skip it."""
SEQUENCES: Final = 1 << 32
"""Sequence numbers in a file are modulo this."""
_TIMES = struct.Struct("<QQI")
_HEAD = struct.Struct("<BQ")
_BEGIN = struct.Struct("<Q")


def type_check(message: RecordedMessage) -> int:
    """Return the checksum of what the messages of one channel have in common."""
    text = f"{message.topic}\0{message.type_name}\0".encode("utf-8", "replace")
    return zlib.crc32(message.schema, zlib.crc32(text))


def message_check(message: RecordedMessage, of_type: int) -> int:
    """Return the checksum of a message; ``of_type``: that of `type_check`."""
    times = message.log_time, message.publish_time, message.sequence % SEQUENCES
    return zlib.crc32(message.data, zlib.crc32(_TIMES.pack(*times), of_type))


def checks_record(chunk: int, checks: Iterable[int]) -> bytes:
    """Return the record for the chunk that begins at byte ``chunk`` of the file."""
    values = array.array("I", checks)
    if sys.byteorder == "big":
        values.byteswap()
    content = _BEGIN.pack(chunk) + values.tobytes()
    content += zlib.crc32(content).to_bytes(4, "little")
    return _HEAD.pack(OPCODE, len(content)) + content


def read_checks(content: bytes) -> tuple[int, list[int]] | None:
    """Return the begin of a chunk and its checksums; None if the content is damaged."""
    if len(content) < 12 or len(content) % 4:
        return None
    if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
        return None
    values = array.array("I", content[_BEGIN.size : -4])
    if sys.byteorder == "big":
        values.byteswap()
    return _BEGIN.unpack_from(content)[0], values.tolist()
